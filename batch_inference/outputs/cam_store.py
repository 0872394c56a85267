"""Packs maps in Parquet files by the hundred, with all that is needed to draw them later."""

import dataclasses
import hashlib
import io
import time
from collections.abc import Iterator

import apache_beam as beam
import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from batch_inference.outputs import picture_paths, schema
from batch_inference.outputs.records import (
    PackedCam,
    Rejection,
    Scored,
    float32,
    printable,
    reject_example,
)
from batch_inference.storage import filesystem, storage_errors
from trainer.artifact import Artifact
from trainer.drawing import overlay

MAPS_PER_PACK = 256
BYTES_PER_PACK = 1 << 24
SECONDS_PER_PACK = 10.0
"""A pack is written when it holds so many maps, is so large or so old. This limits the memory of a
worker, and what a kill loses."""


def draw_map(packed: PackedCam, style: str, colours: str = "viridis") -> np.ndarray:
    """Draw a packed map.

    Returns:
      uint8 [height, width, 3], BGR: as `overlay.draw` draws it on the original picture, but for
      JPEG's small changes.

    Raises:
      ValueError: the map or the picture is damaged.
    """
    picture = (
        cv2.imdecode(np.frombuffer(packed.picture, np.uint8), cv2.IMREAD_GRAYSCALE)
        if packed.picture
        else None
    )
    if picture is None:
        raise ValueError("the packed picture is not a JPEG")
    cam = (
        np.frombuffer(packed.cam, "<f2")
        .reshape(packed.cam_height, packed.cam_width)
        .astype(np.float32)
    )
    return overlay.draw(picture, cam, packed.image_size, packed.scale, style, colours)


def list_maps(pack: str) -> list[tuple[str, int | None, str]]:
    """Return `uri`, `frame` and `path` (as in `PackedCam`) of each map in a pack.

    Raises:
      StorageError: the file cannot be read.
      pyarrow.ArrowException: it is damaged.
    """
    with pyarrow.parquet.ParquetFile(io.BytesIO(filesystem.read(pack))) as file:
        return [
            (row["uri"], row["frame"], row["path"])
            for row in file.read(["uri", "frame", "path"]).to_pylist()
        ]


@dataclasses.dataclass(frozen=True)
class Encode:
    """Replaces the picture of a scored image by its `packed` map, or rejects the image.

    It encodes pixels that a worker process has decoded: nothing of the file itself is read here.

    Attributes:
      described: the model's artifact.
      min_probability: below it neither map nor picture is kept.
    """

    described: Artifact
    min_probability: float

    def __call__(self, scored: Scored | Rejection) -> Scored | Rejection:
        if isinstance(scored, Rejection) or scored.example.picture is None:
            return scored
        example = scored.example
        try:
            wanted = scored.probability >= self.min_probability
            packed = self._pack(scored, scored.example.picture) if wanted else None
        except Exception as error:
            # A picture that cannot be encoded must not fail the rest of the bundle.
            return reject_example(example, "write_failed", str(error), self.described.model_id)
        return dataclasses.replace(
            scored, example=dataclasses.replace(example, picture=None), packed=packed
        )

    def _pack(self, scored: Scored, picture: np.ndarray) -> PackedCam:
        example, described = scored.example, self.described
        largest = np.finfo(np.float16).max
        return PackedCam(
            uri=printable(example.source.uri),
            frame=example.frame,
            path=picture_paths.cam_path(example.source.name, "", example.frame),
            label=described.label(scored.probability),
            probability=float32(scored.probability),
            model=described.model_id,
            cam=np.clip(scored.cam, -largest, largest).astype("<f2").tobytes(),
            cam_height=scored.cam.shape[0],
            cam_width=scored.cam.shape[1],
            scale=described.cam["scale"],
            image_size=described.image_size,
            picture=overlay.encode(picture, "jpeg"),
        )


class WritePacks(beam.DoFn):
    """Packs the maps of images into files, and passes the images on with `stored` naming the file.

    A pack is written before its images are passed on, so that a row never names a missing file. It
    is named after its content, so that a repeated bundle writes the same packs.
    """

    def __init__(self, output: str, attempt: str):
        """Take the folder of the run, and the prefix of this attempt's packs.

        Packs of a later attempt sort after those of an earlier one.
        """
        super().__init__()
        self._output = output
        self._attempt = attempt
        self._waiting: list[Scored | Rejection] = []
        self._bytes = 0
        self._started = 0.0

    def start_bundle(self) -> None:
        # A failed bundle may have left images behind; the runner repeats them.
        self._waiting, self._bytes = [], 0

    def process(self, scored: Scored | Rejection) -> Iterator[Scored | Rejection]:
        if not self._waiting:
            self._started = time.monotonic()
        self._waiting.append(scored)
        if isinstance(scored, Scored) and scored.packed:
            self._bytes += len(scored.packed.picture)
        full = len(self._waiting) >= MAPS_PER_PACK or self._bytes >= BYTES_PER_PACK
        if full or time.monotonic() - self._started >= SECONDS_PER_PACK:
            yield from self._write()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for scored in self._write():
            yield WindowedValue(scored, MIN_TIMESTAMP, (GlobalWindow(),))

    def _write(self) -> Iterator[Scored | Rejection]:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        packed = [
            scored.packed for scored in waiting if isinstance(scored, Scored) and scored.packed
        ]
        path, failure = None, None
        try:
            path = write_pack(self._output, self._attempt, packed) if packed else None
        except storage_errors.UnwritableError:
            raise
        except Exception as error:
            failure = error
        for scored in waiting:
            if isinstance(scored, Rejection) or not scored.packed:
                yield scored
            elif failure:
                yield reject_example(
                    scored.example, "write_failed", str(failure), scored.packed.model
                )
            else:
                yield dataclasses.replace(scored, packed=None, stored=path)


def write_pack(output: str, attempt: str, packed: list[PackedCam]) -> str:
    """Write one file of maps, and return its path relative to the output.

    Raises:
      StorageError: the file could not be written.
    """
    file = pyarrow.BufferOutputStream()
    # A dictionary would not make the maps and pictures smaller: they are compressed already.
    table = pyarrow.Table.from_pylist(
        [schema.to_record(cam) for cam in packed], schema.to_arrow(schema.list_columns(PackedCam))
    )
    pyarrow.parquet.write_table(table, file, compression="zstd", use_dictionary=["label", "model"])
    contents = file.getvalue().to_pybytes()
    path = f"{picture_paths.CAMS}/{attempt}-{hashlib.sha256(contents).hexdigest()[:32]}.parquet"
    filesystem.write(filesystem.join(output, path), contents, "application/vnd.apache.parquet")
    return path
