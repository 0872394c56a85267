"""Grouping that spares memory: the embedded runner keeps all that it groups, so it is given compressed packs, not single things."""

import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

_SHELVES = 1024
_UNPACKED = 5_000


class GroupCompactly(beam.PTransform):
    """Any things, in one collection or several -> (shelf, packs), grouped: all things of one key come on one shelf, beside those of other keys.

    Some tens of bytes for a thing with a path in it, instead of a thousand. `unpacked` gives the things back. Global window only.
    """

    def __init__(self, key: Callable[[Any], str]):
        super().__init__()
        self._key = key

    def expand(self, things: beam.PCollection | Sequence[beam.PCollection]) -> beam.PCollection:
        collections = (things,) if isinstance(things, beam.PCollection) else things
        # Flattened only when packed: ahead of it, the embedded runner would keep all things as they are.
        packs = [
            part | f"Pack {number}" >> beam.ParDo(_Pack(self._key))
            for number, part in enumerate(collections)
        ]
        return packs | beam.Flatten() | beam.GroupByKey()


def unpack(packs: Iterable[bytes]) -> Iterator[Any]:
    """The things of one shelf."""
    for pack in packs:
        yield from pickle.loads(zlib.decompress(pack))


class _Pack(beam.DoFn):
    def __init__(self, key: Callable[[Any], str]):
        super().__init__()
        self._key = key
        self._shelves: dict[int, list[Any]] = {}
        self._unpacked = 0

    def start_bundle(self) -> None:
        self._shelves, self._unpacked = {}, 0

    def process(self, thing: Any) -> Iterator[tuple[int, bytes]]:
        shelf = zlib.crc32(self._key(thing).encode("utf-8")) % _SHELVES
        self._shelves.setdefault(shelf, []).append(thing)
        self._unpacked += 1
        if self._unpacked >= _UNPACKED:
            yield from self._packs()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for pack in self._packs():
            yield WindowedValue(pack, MIN_TIMESTAMP, (GlobalWindow(),))

    def _packs(self) -> Iterator[tuple[int, bytes]]:
        shelves, self._shelves, self._unpacked = self._shelves, {}, 0
        for shelf, things in shelves.items():
            yield shelf, zlib.compress(pickle.dumps(things), 1)
