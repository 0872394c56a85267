"""Group the values of an attribute, so that metrics can be computed for each group."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_GROUPS = 8
BLANK = "(blank)"
OTHERS = "(others)"
_AGE = re.compile(r"(\d{3})([DWMY])", re.ASCII)
"""An age as DICOM writes it (PS3.5, value representation AS), such as `045Y`."""
_IN_A_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
_SMALLEST_IDENTIFIER = 100_000
_PATIENTS_OF_A_VALUE = 2
"""Values identify patients if on average fewer patients share one."""


def group_values(column: Sequence[Any]) -> dict[str, np.ndarray]:
    """Assign every row of a column to exactly one group.

    - Up to `MAX_GROUPS` different values: each value is a group.
    - More numbers (as text too, and ages such as `045Y`), or numbers that are mostly different:
      groups are quarters of the rows. A number that more than a quarter of the rows share is a
      group of its own.
    - More texts: the `MAX_GROUPS` most frequent are groups, the others together are `OTHERS`.
    - Empty cells and `nan` are the group `BLANK`.

    Returns:
      The members of each group by its name, bool [N], in order. The result is empty if there is
      nothing to compare: a single group, or texts that are mostly different.
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


def identifies_patients(column: Sequence[Any], patients: Sequence[Any] | np.ndarray) -> bool:
    """Return whether a column's values tell patients apart: names, record numbers, birth dates.

    They do if there are more than `MAX_GROUPS` values, shared by fewer than two patients on average
    (birth dates coincide). Numbers do so only if they are whole and most of them have six digits or
    more: patients differ in age and exposure too.

    Args:
      column: one value per row; empty cells and `nan` don't count.
      patients: the patient of each row.
    """
    text = np.char.strip(np.asarray(column, np.str_))
    filled = ~np.isin(np.char.lower(text), ("", "nan"))
    values = np.unique(text[filled])
    numbers = _parse_numbers(values)
    if len(values) <= MAX_GROUPS:
        return False
    if numbers is not None and (
        (numbers % 1).any() or np.median(np.abs(numbers)) < _SMALLEST_IDENTIFIER
    ):
        return False
    pairs = {*zip(text[filled], np.asarray(patients, np.str_)[filled], strict=True)}
    return len(pairs) < _PATIENTS_OF_A_VALUE * len(values)


def _parse_numbers(values: np.ndarray) -> np.ndarray | None:
    """Return texts [M] as float64 [M], ages of DICOM in years; None if one is no finite number."""
    try:
        numbers = np.array([_parse_number(value) for value in values.tolist()], np.float64)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _parse_number(text: str) -> float:
    age = _AGE.fullmatch(text)
    return int(age[1]) / _IN_A_YEAR[age[2]] if age else float(text)


def _name_ranges(values: np.ndarray, share: np.ndarray) -> list[str]:
    """Name the range of each of the ascending values [M], such as `3 to 17`.

    `share` [M] is the share of the rows that have each value.
    """
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
