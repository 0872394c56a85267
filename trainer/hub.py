"""Fetch an artifact of the Hugging Face Hub: `hf://user/name`, or `hf://user/name@revision`.

Its own client keeps the files in its cache, and answers from there where the Hub can't be reached.
"""

import importlib.util

from trainer.errors import ConfigError
from trainer.files import urls

SCHEME = "hf"


def fetch(model: str) -> str:
    """Return the local folder of an artifact on the Hub; any other address as it is.

    The client's own variables apply: `HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`.

    Raises:
      ConfigError: the address names no repository, the client is not installed, or the files can
        neither be fetched nor be found in the cache.
    """
    scheme, place = urls.split_url(model)
    if scheme != SCHEME:
        return model
    name, _, revision = place.strip("/").partition("@")
    if name.count("/") != 1 or not all(name.split("/")):
        raise ConfigError(f"{model} names no repository; expected hf://user/name[@revision]")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ConfigError(
            f"{model} needs the package huggingface_hub; install it with: pip install 'humerus[hf]'"
        )
    import huggingface_hub
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        return huggingface_hub.snapshot_download(name, revision=revision or None)
    except Exception as error:  # of the client, of its HTTP library, or of the disk
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError(
            f"{model} cannot be fetched ({said}); check the name, the connection, and HF_TOKEN "
            "where the repository is private"
        ) from error
