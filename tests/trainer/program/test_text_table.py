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


def test_words_in_the_last_column_are_wrapped_to_the_width_of_a_terminal():
    words = "the map separates positive from negative images " * 5
    rows = [("evidence", "0.5", words.strip()), ("sign", "1.5", "it does")]
    lines = text_table.align(("check", "value", "found"), rows).splitlines()
    assert 90 < max(map(len, lines)) <= text_table.WIDTH
    found = [line[17:] for line in lines]
    assert " ".join(found[2:-1]) == words.strip() and found[-1] == "it does"
    assert [line[:17].strip() for line in lines[3:-1]] == [""] * (len(lines) - 4)
    wide = text_table.align(("a", "b"), [("x" * 120, "one or two words")]).splitlines()
    assert [line[122:] for line in wide[2:]] == ["one or two", "words"]
