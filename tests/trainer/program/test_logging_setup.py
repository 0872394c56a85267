import logging as python_logging

import pytest
from absl import logging

import trainer
from trainer.program import telemetry
from trainer.program.logging_setup import configure_logs
from trainer.program.text_escaping import escape_control_characters


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain ångström 手 a\tb\nc", "plain ångström 手 a\tb\nc"),
        ("\x1b[2Jclear\x07", "\\x1b[2Jclear\\x07"),
        ("\x85\x9b2J", "\\x85\\x9b2J"),
        ("\u202egnp.evil\u202c", "\\u202egnp.evil\\u202c"),
        ("one\u2028two\u2029three", "one\\u2028two\\u2029three"),
        ("\u2066isolate\u2069\u200f\u061c", "\\u2066isolate\\u2069\\u200f\\u061c"),
    ],
)
def test_what_steers_a_terminal_or_turns_text_around_is_an_escape(text, escaped):
    assert escape_control_characters(text) == escaped


def test_a_line_end_in_a_name_starts_no_line_of_the_log():
    telemetry.start(["humerus-score"])
    configure_logs()
    record = python_logging.LogRecord(
        "absl", python_logging.INFO, trainer.__file__, 1, "scoring %s", ("a\nW forged",), None
    )
    assert logging.get_absl_handler().format(record).endswith("INFO scoring a\\nW forged")
