"""The two mistakes a user can make, and the exit code that each program ends with."""

EXIT_DONE = 0
EXIT_FAILURE = 1
EXIT_CONFIG = 2
EXIT_DATA = 3
EXIT_STOPPED = 4


class ConfigError(ValueError):
    """The command line or the configuration is wrong: one sentence says what was expected, what came, what to do."""


class DataError(ValueError):
    """The data is wrong: missing, contradictory, damaged, or not what the command was told to expect."""


class StoppedError(RuntimeError):
    """A signal asked the run to stop; a checkpoint was written, and the same command goes on from there."""


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a number."""


class RunnerError(RuntimeError):
    """The engine that the scorer was handed to gave up: one sentence with what it said, and what to do."""


class HostLostError(RuntimeError):
    """Another host of a run over several died or can't be reached."""
