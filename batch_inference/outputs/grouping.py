"""Groups elements in compressed packs: the embedded runner keeps all that it groups in memory."""

import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

_GROUPS = 1024
_ELEMENTS_PER_PACKING = 5_000


class GroupCompactly(beam.PTransform):
    """Groups the elements of one or several collections, as (number of the group, packs).

    All elements of one key come in one group, beside those of other keys: one of 1,024 groups, by a
    hash of the key. `unpack` returns the elements. An element that holds a path takes some tens of
    bytes, where Beam's own grouping takes a thousand. Global window only.
    """

    def __init__(self, key: Callable[[Any], str]):
        """Take the function that returns an element's key."""
        super().__init__()
        self._key = key

    def expand(self, elements: beam.PCollection | Sequence[beam.PCollection]) -> beam.PCollection:
        collections = (elements,) if isinstance(elements, beam.PCollection) else elements
        # Packed before they are joined, as the embedded runner keeps what it joins.
        packs = [
            part | f"Pack {number}" >> beam.ParDo(_Pack(self._key))
            for number, part in enumerate(collections)
        ]
        return packs | beam.Flatten() | beam.GroupByKey()


def unpack(packs: Iterable[bytes]) -> Iterator[Any]:
    """Yield the elements of one group."""
    for pack in packs:
        yield from pickle.loads(zlib.decompress(pack))


def split_by_type(*kinds: type) -> beam.Partition:
    """Return a transform that splits a mixed collection by type, into as many as `kinds`."""
    return beam.Partition(lambda record, _: kinds.index(type(record)), len(kinds))  # type: ignore[arg-type]


class _Pack(beam.DoFn):
    """Packs some elements of a group, compressed, beside the number of the group."""

    def __init__(self, key: Callable[[Any], str]):
        super().__init__()
        self._key = key
        self._groups: dict[int, list[Any]] = {}
        self._waiting = 0

    def start_bundle(self) -> None:
        self._groups, self._waiting = {}, 0

    def process(self, element: Any) -> Iterator[tuple[int, bytes]]:
        group = zlib.crc32(self._key(element).encode("utf-8")) % _GROUPS
        self._groups.setdefault(group, []).append(element)
        self._waiting += 1
        if self._waiting >= _ELEMENTS_PER_PACKING:
            yield from self._packs()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for pack in self._packs():
            yield WindowedValue(pack, MIN_TIMESTAMP, (GlobalWindow(),))

    def _packs(self) -> Iterator[tuple[int, bytes]]:
        groups, self._groups, self._waiting = self._groups, {}, 0
        for group, elements in groups.items():
            yield group, zlib.compress(pickle.dumps(elements), 1)
