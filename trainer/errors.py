"""The errors that a command reports in one sentence, and the exit codes of all commands."""

EXIT_DONE = 0
EXIT_FAILURE = 1
EXIT_CONFIG = 2
EXIT_DATA = 3
EXIT_STOPPED = 4


class ConfigError(ValueError):
    """The command line or the configuration is wrong.

    The message is one sentence: what is wrong, what was expected, and what to do.
    """


class DataError(ValueError):
    """The data is missing, contradictory, damaged, or other than the command line says."""


class StorageOutageError(OSError):
    """The storage does not answer or is full; the same command may succeed later."""


class StoppedError(RuntimeError):
    """A signal stopped the run after a checkpoint, from which the same command continues."""


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a number."""


class RunnerError(RuntimeError):
    """The Beam runner failed; the message says why, and what to do."""


class TrialError(RuntimeError):
    """Trials of a sweep failed; the message names them."""


class HostLostError(RuntimeError):
    """Another host of a run on several hosts died or can't be reached."""
