"""What is checked before a run starts, so that a mistake costs seconds and leaves nothing behind."""

import os
import re
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from batch_inference import manifest, sources, storage
from trainer import radiograph
from trainer.artifact import Artifact, ArtifactError
from trainer.errors import ConfigError, DataError


def without_secrets(options: PipelineOptions) -> dict[str, str]:
    """What was asked of Beam, but for what opens a door: the record lies beside the results."""
    given = options.get_all_options(drop_default=True)
    return {
        name: str(value) for name, value in given.items() if not re.search("secret|token|connection_string|access_key", name)
    }


def check_cams(style: str, store: str) -> None:
    """Raises `ConfigError` where maps are to be packed that nobody wants."""
    if style == "none" and store != "files":
        raise ConfigError(f"--cam=none keeps no map for --cam_store={store} to hold; leave one of them out")


def check_preprocessing(described: Artifact) -> None:
    """Raises `ArtifactError` where the model was trained on pixels that are not those made here."""
    made_under, here = described.preprocessing.get("version"), radiograph.PREPROCESSING["version"]
    if made_under != here:
        raise ArtifactError(
            f"the model was trained on pixels of preprocessing version {made_under}, this program makes version {here}; "
            "score with the humerus that exported it, or train again"
        )


def count_inputs(location: str, exclude: Sequence[str] = (), recursive: bool = True) -> int | None:
    """How many inputs there are; None where counting them would take as long as a remote listing.

    Raises:
      DataError: there is none.
    """
    if not sources.any_in(location, exclude, recursive):
        left_out = f" that --exclude={','.join(exclude)} leaves" if exclude else ""
        raise DataError(
            f"nothing to score: no file matches {location}{left_out}; expected a folder, a glob or a manifest with files in it"
        )
    return None if storage.is_remote(location) else sum(1 for _ in sources.find(location, exclude, recursive))


def check_apart(output: str, location: str) -> None:
    """Raises `ConfigError` where the output and the input lie in each other."""
    output = storage.absolute(output)
    root = sources.root_of(location)
    whole_tree = not sources.is_pattern(storage.absolute(location)) or "**" in location
    takes_tree = whole_tree and not manifest.is_manifest(location)
    if takes_tree and _within(output, root):
        raise ConfigError(
            f"--output={output} lies inside the input {root}: its pictures would be scored; choose another folder"
        )
    if takes_tree and _within(root, output):
        raise ConfigError(
            f"the input {root} lies inside --output={output}: results and inputs would mix; choose another folder"
        )


def _within(inner: str, outer: str) -> bool:
    if storage.is_remote(inner) != storage.is_remote(outer):
        return False
    if not storage.is_remote(inner):
        inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    return f"{inner}/".startswith(f"{outer.rstrip('/')}/")
