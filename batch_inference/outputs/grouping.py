"""Group elements in compressed packs: the embedded runner keeps all that it groups in memory."""

import collections
import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam

from batch_inference.buffering import Buffered
from batch_inference.composite import composite

_GROUPS = 1024
_ELEMENTS_PER_PACKING = 5_000


@composite
def GroupCompactly(
    elements: beam.PCollection | Sequence[beam.PCollection], key: Callable[[Any], str]
) -> beam.PCollection:
    """Group the elements of one or several collections, as (number of the group, packs).

    All elements of one key come in one group, beside those of other keys: one of 1,024 groups, by a
    hash of the key. `unpack` returns the elements. An element that holds a path takes some tens of
    bytes, where Beam's own grouping takes a thousand. Global window only.

    Args:
      key: returns an element's key.
    """
    parts = (elements,) if isinstance(elements, beam.PCollection) else elements
    # Packed before they are joined, as the embedded runner keeps what it joins.
    packs = [part | f"Pack {number}" >> beam.ParDo(_Pack(key)) for number, part in enumerate(parts)]
    return packs | beam.Flatten() | beam.GroupByKey()


def unpack(packs: Iterable[bytes]) -> Iterator[Any]:
    """Yield the elements of one group."""
    for pack in packs:
        yield from pickle.loads(zlib.decompress(pack))


def split_by_type(*kinds: type) -> beam.Partition:
    """Return a transform that splits a mixed collection by type, into as many as `kinds`."""
    return beam.Partition(lambda record, _: kinds.index(type(record)), len(kinds))  # type: ignore[arg-type]


class _Pack(Buffered):
    """Packs some elements of a group, compressed, beside the number of the group."""

    def __init__(self, key: Callable[[Any], str]):
        super().__init__(_ELEMENTS_PER_PACKING)
        self._key = key

    def flush(self, elements: Sequence[Any]) -> Iterator[tuple[int, bytes]]:
        groups: dict[int, list[Any]] = collections.defaultdict(list)
        for element in elements:
            groups[zlib.crc32(self._key(element).encode("utf-8")) % _GROUPS].append(element)
        for group, members in groups.items():
            yield group, zlib.compress(pickle.dumps(members), 1)
