"""The groups of a column that metrics are told of: its values where they are few, ranges of numbers, or the commonest of many."""

from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_GROUPS = 8
BLANK = "(blank)"
OTHERS = "(others)"


def group_values(column: Sequence[Any]) -> dict[str, np.ndarray]:
    """Bool [N] by the name of each group, in order; every row is in exactly one.

    Up to eight values stand for themselves. Of more, and where most rows have a value of their own, numbers (as text too) are cut
    into quarters, between which a number that more than a quarter of the rows share stands alone; of other text the eight commonest
    stand for themselves and the rest are `OTHERS`. Empty cells and `nan` are `BLANK`.

    Returns:
      Nothing where there is nothing to compare: one group only, or text of which most rows have one of their own.
    """
    text = np.char.strip(np.asarray(column, np.str_))
    filled = ~np.isin(np.char.lower(text), ("", "nan"))
    values, value, counts = np.unique(text[filled], return_inverse=True, return_counts=True)
    numbers = _parse_numbers(values)
    order = np.argsort(values if numbers is None else numbers, kind="stable")
    few, mostly_different = len(values) <= MAX_GROUPS, 2 * len(values) > filled.sum()
    names = values.astype(object)
    if numbers is not None and (mostly_different or not few):
        names[order] = _name_ranges(names[order], counts[order] / counts.sum())
    elif mostly_different:
        return {}
    elif not few:
        frequent, rare = np.split(np.argsort(-counts, kind="stable"), [MAX_GROUPS])
        names[rare], order = OTHERS, np.append(np.sort(frequent), rare)
    group = np.full(len(text), BLANK, object)
    group[filled] = names[value]
    found = {name: group == name for name in [*names[order], BLANK]}
    return (
        {name: members for name, members in found.items() if members.any()}
        if len(set(group)) > 1
        else {}
    )


def _parse_numbers(values: np.ndarray) -> np.ndarray | None:
    try:
        numbers = values.astype(np.float64)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _name_ranges(values: np.ndarray, share: np.ndarray) -> list[str]:
    """The range, as `3 to 17`, that each of the rising values [M] falls into, for the shares [M] of the rows that have it."""
    alone = share > 0.25
    names = []
    for stretch in np.split(np.arange(len(values)), np.flatnonzero(alone[1:] | alone[:-1]) + 1):
        rows = share[stretch].sum()
        place = (share[stretch].cumsum() - share[stretch] / 2) / rows
        part = np.floor(place * max(1, round(4 * rows)))
        for k in np.unique(part):
            members = values[stretch[part == k]]
            low, high = members[0], members[-1]
            names += [low if low == high else f"{low} to {high}"] * len(members)
    return names
