"""Pack maps in Parquet files by the hundred, with all that is needed to draw them later."""

import dataclasses
import hashlib
import io
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet

from batch_inference.buffering import Buffered
from batch_inference.options import Selection
from batch_inference.outputs import picture_paths, row_files, schema
from batch_inference.outputs.records import (
    PackedCam,
    Rejection,
    Scored,
    escape_reversibly,
    float32,
    reject_example,
)
from batch_inference.storage import filesystem, storage_errors
from trainer.artifact import Artifact
from trainer.drawing import overlay
from trainer.errors import DataError

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
      DataError: the file is damaged.
      StorageError: it cannot be read.
    """
    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(filesystem.read(pack))) as file:
            rows = file.read(["uri", "frame", "path"]).to_pylist()
            return [(row["uri"], row["frame"], row["path"]) for row in rows]
    except (pyarrow.ArrowException, KeyError) as error:
        raise DataError(f"{pack} cannot be read as packed maps ({error}); score again") from error


def list_named_maps(scored: str, selection: Selection) -> dict[tuple[str, int | None], str]:
    """Return `path` (as in `PackedCam`) of the selected rows' packed maps, by `uri` and `frame`.

    Raises:
      DataError: there are no rows, or they or a pack are damaged.
      StorageError: a file cannot be read.
    """
    return {
        (uri, frame): path
        for pack, images in group_selected_by_pack(scored, selection).items()
        for uri, frame, path in list_maps(filesystem.join(scored, pack))
        if (uri, frame) in images
    }


def group_selected_by_pack(
    scored: str, selection: Selection
) -> dict[str, set[tuple[str, int | None]]]:
    """Return `uri` and `frame` of the selected rows with a packed map, by the path of its pack.

    A pack may also hold maps of files that were replaced or removed since: no row names these.

    Raises:
      DataError: there are no rows, or they are damaged.
      StorageError: they cannot be read.
    """
    named: dict[str, set[tuple[str, int | None]]] = {}
    for row in row_files.read(scored, "predictions"):
        cam = row.get("cam") or ""
        if cam.endswith(".parquet") and selection.selects(
            row["uri"], row["label"], float(row["probability"])
        ):
            named.setdefault(cam, set()).add((row["uri"], row_files.read_frame(row)))
    return named


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
            uri=escape_reversibly(example.source.uri),
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


class WritePacks(Buffered):
    """Packs the maps of images into files, and passes the images on with `stored` naming the file.

    A pack is written before its images are passed on, so that a row never names a missing file. It
    is named after its content, so that a repeated bundle writes the same packs.
    """

    def __init__(self, output: str, attempt: str):
        """Take the folder of the run, and the prefix of this attempt's packs.

        Packs of a later attempt sort after those of an earlier one.
        """
        super().__init__(MAPS_PER_PACK, SECONDS_PER_PACK)
        self._output = output
        self._attempt = attempt

    def is_full(self, waiting: Sequence[Scored | Rejection]) -> bool:
        held = sum(len(packed.picture) for packed in _list_packed(waiting))
        return super().is_full(waiting) or held >= BYTES_PER_PACK

    def flush(self, waiting: Sequence[Scored | Rejection]) -> Iterator[Scored | Rejection]:
        packed = _list_packed(waiting)
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


def _list_packed(waiting: Sequence[Scored | Rejection]) -> list[PackedCam]:
    return [scored.packed for scored in waiting if isinstance(scored, Scored) and scored.packed]


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
