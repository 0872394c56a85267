"""Escape control characters in text that comes from outside, such as names of files."""

_CONTROL_CHARACTERS = (
    {
        number: f"\\x{number:02x}"
        for number in (*range(0x20), *range(0x7F, 0xA0))
        if chr(number) not in "\n\t"
    }
    | {
        # Line and paragraph ends of Unicode, and marks that change the direction of the text.
        number: f"\\u{number:04x}"
        for number in (
            0x061C,
            *range(0x200E, 0x2010),
            *range(0x2028, 0x202F),
            *range(0x2066, 0x206A),
        )
    }
    | {
        # Bytes of file names that are not UTF-8, which no stream in UTF-8 takes.
        number: f"\\u{number:04x}"
        for number in range(0xD800, 0xE000)
    }
)


def escape_control_characters(text: str) -> str:
    """Return a text whose control characters, but for line ends and tabs, are escapes.

    So are bytes that are not UTF-8.

    Names of files and values of flags come from outside: as they are, they could steer a terminal.
    """
    return text.translate(_CONTROL_CHARACTERS)


def escape_name(name: str) -> str:
    """Return a file's name on one line: what is no UTF-8 and control characters are escapes."""
    return escape_control_characters(name).replace("\n", "\\n").replace("\t", "\\t")
