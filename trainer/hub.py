"""Fetch an artifact of the Hugging Face Hub: `hf://user/name`, or `hf://user/name@revision`.

Its own client keeps the files in its cache, and answers from there where the Hub can't be reached.
"""

from trainer import machine
from trainer.errors import ConfigError, StorageOutageError
from trainer.files import urls

SCHEME = "hf"


def fetch(model: str) -> str:
    """Return the local folder of an artifact on the Hub; any other address as it is.

    The client's own variables apply: `HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`.

    Raises:
      ConfigError: the address names no repository that may be read, the client is not installed,
        or it is offline and the cache lacks the files.
      OSError: the Hub does not answer, or the disk is full.
    """
    scheme, place = urls.split_url(model)
    if scheme != SCHEME:
        return model
    name, _, revision = place.strip("/").partition("@")
    if name.count("/") != 1 or not all(name.split("/")):
        raise ConfigError(f"{model} names no repository; expected hf://user/name[@revision]")
    if not machine.has_packages("huggingface_hub"):
        raise ConfigError(
            f"{model} needs the package huggingface_hub; {machine.advise_extra('hf')}"
        )
    import huggingface_hub
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        return huggingface_hub.snapshot_download(name, revision=revision or None)
    except Exception as error:  # of the client, of its HTTP library, or of the disk
        said = urls.hide_credentials(" ".join(str(error).split())[:300]) or type(error).__name__
        if _may_pass(error):
            raise StorageOutageError(
                f"{model} cannot be fetched now ({said}); start the same command again"
            ) from error
        raise ConfigError(
            f"{model} cannot be fetched ({said}); check the name, the connection, and HF_TOKEN "
            "where the repository is private"
        ) from error


def _may_pass(error: Exception) -> bool:
    """Return whether the same call may succeed later: the Hub, the way to it or the disk failed."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):  # it was asked, and the cache is empty
        return not isinstance(error.__cause__, errors.OfflineModeIsEnabled)
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return status >= 500 or status == 429
    # The client takes its HTTP library from another package in each of its major versions.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "TransportError" in kinds:
        return "UnsupportedProtocol" not in kinds  # that is a wrong HF_ENDPOINT
    # A plain one without a number says that a file arrived in part.
    return type(error) is OSError or (isinstance(error, OSError) and error.errno is not None)
