"""Tables for a terminal."""

from trainer.program import text_table


def test_text_is_aligned_at_the_left_and_numbers_at_the_right():
    rows = [("a", "1.5", "yes: it is"), ("longer", "-12.25 (-13 to -11)", ""), ("", "", "no")]
    assert text_table.align(("name", "value", "why"), rows).splitlines() == [
        "name                  value  why",
        "------  -------------------  ----------",
        "a                       1.5  yes: it is",
        "longer  -12.25 (-13 to -11)",
        "                             no",
    ]


def test_a_header_alone_is_a_table():
    assert text_table.align(("a", "bc"), []).splitlines() == ["a  bc", "-  --"]
