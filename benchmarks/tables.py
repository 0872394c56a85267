"""Write the tables of benchmarks/README.md, each between two comments that name it."""

import pathlib
import re
import textwrap

README = pathlib.Path(__file__).with_name("README.md")


def replace_table(name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`, by Markdown, and print it.

    Raises:
      ValueError: benchmarks/README.md has no such place.
    """
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    page = README.read_text(encoding="utf-8")
    place = re.compile(re.escape(opening) + ".*?" + re.escape(closing), re.DOTALL)
    if not place.search(page):
        raise ValueError(
            f"{README} has no place for {name}: expected {opening} and {closing},"
            " each on a line of its own"
        )
    lines = [
        part
        for line in text.strip().splitlines()
        for part in ([line] if line.startswith(("|", "!")) else textwrap.wrap(line, 100) or [""])
    ]
    content = "\n".join([opening, *lines, closing])
    README.write_text(place.sub(lambda _: content, page), encoding="utf-8")
    print(text)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a table with text in its first column and numbers in the others."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
