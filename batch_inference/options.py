"""What a scoring run is asked for."""

import dataclasses

from trainer.artifact import FREE_METHOD


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asks for; names and meanings are those of the flags."""

    input: str
    model: str
    output: str
    exclude: tuple[str, ...] = ()
    recursive: bool = True
    frames: str = "one"
    other_body_parts: str = "score"
    study_key: str = "auto"
    id_salt: str | None = dataclasses.field(default=None, repr=False)
    engine: str = "auto"
    precision: str = "auto"
    threshold: float | None = None
    batch_size: int = 32
    cam: str = "overlay"
    method: str = FREE_METHOD
    cam_format: str = "jpeg"
    cam_colours: str = "viridis"
    cam_min_probability: float = 0.0
    cam_store: str = "files"
    format: tuple[str, ...] = ("jsonl", "csv")
    bigquery: str | None = None
    max_rejection_rate: float = 1.0
    resume: bool = False
    overwrite: bool = False
    beam: tuple[str, ...] = ()
