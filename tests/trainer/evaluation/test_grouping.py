"""Columns as they come: every row in one group, and only groups that are worth comparing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation.grouping import BLANK, OTHERS, group_values, identifies_patients

CELLS = st.one_of(
    st.text(max_size=3),
    st.integers(-3, 40).map(str),
    st.floats().map(str),
    st.sampled_from([BLANK, OTHERS]),
)


def sizes(column) -> dict[str, int]:
    return {name: int(members.sum()) for name, members in group_values(column).items()}


@settings(deadline=None)
@given(st.lists(CELLS, max_size=60))
def test_every_row_is_in_exactly_one_group(column):
    found = group_values(column)
    assert not found or np.array_equal(np.sum(list(found.values()), axis=0), np.ones(len(column)))
    assert len(found) != 1 and all(members.any() for members in found.values())


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["grey"] * 30 + ["rgb"] * 10, {"grey": 30, "rgb": 10}),
        ([12, 8, 12, 10] * 10, {"8": 10, "10": 10, "12": 20}),
        # More digits than a rounded label would show.
        (
            [str(20230101 + k) for k in range(8)] * 4 + [str(20230109 + k) for k in range(8)],
            {
                "20230101 to 20230102": 8,
                "20230103 to 20230105": 12,
                "20230106 to 20230108": 12,
                "20230109 to 20230116": 8,
            },
        ),
        (
            [f"{age:03}Y" for age in range(1, 10)] + ["003D", "018M", "005W"],
            {"003D to 001Y": 3, "018M to 003Y": 3, "004Y to 006Y": 3, "007Y to 009Y": 3},
        ),
        # Cells that are blank don't turn numbers into text.
        (
            [str(k) for k in range(40)] + ["", "nan"],
            {"0 to 9": 10, "10 to 19": 10, "20 to 29": 10, "30 to 39": 10, BLANK: 2},
        ),
        # What a quarter of the rows share is a group of its own, at the end and in the middle.
        ([0] * 31 + list(range(1, 10)), {"0": 31, "1 to 9": 9}),
        (
            list(range(12)) + [50] * 12 + list(range(90, 106)),
            {"0 to 11": 12, "50": 12, "90 to 97": 8, "98 to 105": 8},
        ),
        ([f"site{k}" for k in range(10)] * 4, {**{f"site{k}": 4 for k in range(8)}, OTHERS: 8}),
    ],
)
def test_the_groups_of_a_column(column, expected):
    assert sizes(column) == expected
    assert list(sizes(column)) == list(expected)


@pytest.mark.parametrize(
    "column", [[], ["grey"] * 9, [""] * 9, [f"id-{k}" for k in range(40)], ["a", "b", "c", "c"]]
)
def test_columns_with_nothing_to_compare(column):
    assert group_values(column) == {}


PATIENTS = [f"p{number // 4}" for number in range(80)]
NUMBERS = np.random.default_rng(0).integers(0, 10_000_000, 1000)


@pytest.mark.parametrize(
    ("value_of_patient", "expected"),
    [
        (lambda number: f"Meyer, Anna {number}", True),
        (lambda number: f"MRN{7000 + number}", True),
        (lambda number: str(19500101 + 10_000 * number), True),
        (lambda number: f"19{50 + number}-02-03", True),
        (lambda number: f"Meyer, Anna {number}" if number % 2 else "", True),
        (lambda number: str(20 + 3 * number), False),  # an age
        (lambda number: f"{20 + 3 * number:03}Y", False),  # an age in DICOM
        (lambda number: f"{NUMBERS[number]:07}", True),
        (lambda number: f"{0.5 + number / 7:.3f}", False),  # an exposure
        (lambda number: f"{150_000.5 + number}", False),
        (lambda number: "ABC"[number % 3], False),  # a hospital
        (lambda number: "LR"[number % 2], False),
        (lambda number: "", False),
    ],
)
def test_columns_that_identify_patients_are_told_from_others(value_of_patient, expected):
    column = [value_of_patient(int(patient[1:])) for patient in PATIENTS]
    assert identifies_patients(column, PATIENTS) == expected


def test_birth_dates_identify_patients_although_some_coincide():
    patients = [f"p{number}" for number in range(15_000)]
    days = np.random.default_rng(0).integers(0, 20_000, len(patients))
    dates = [str(np.datetime64("1950-01-01") + int(day)) for day in days]
    assert identifies_patients(dates, patients)


def test_values_of_images_do_not_identify_patients():
    views = ["AP", "lateral", "axial", "Y"] * 20
    assert not identifies_patients(views, PATIENTS)
