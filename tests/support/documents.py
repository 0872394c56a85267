"""Read the project's pages: their links, headings and command blocks, and the console programs in
them.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEEDS = {
    "a cluster": "kubectl with somewhere to apply to, or a Flink cluster",
    "AWS": "an account",
    "Google Cloud": "a project, a bucket, Dataflow",
    "Go": "what `make test-distributed` builds",
    "CI": "make, whose targets CI runs",
    "a DICOM archive": "Orthanc, as in tests/batch_inference/test_dicom_results.py",
    "a package index": "PyPI and its database of vulnerabilities",
    "the weights' server": "from which Keras downloads",
    "a GPU": "one that CUDA drives",
    "DenseNet121": "a network that takes too long to train here",
}
"""What a command block may need that a test machine lacks, named in a comment on the line before
it.
"""
_FENCE = re.compile(r"^```(\w*)$")
_NEED = re.compile(r"^<!-- needs: (.+) -->$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PROGRAM = re.compile(r'"(humerus-[a-z]+) = ([\w.]+):(\w+)"')


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its text, and what its comment says it
    needs.
    """

    page: str
    line: int
    language: str
    text: str
    needs: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def manual() -> list[pathlib.Path]:
    """README.md, then the pages of docs/ in the order in which docs/README.md lists them."""
    index = ROOT / "docs" / "README.md"
    listed = [
        (index.parent / target).resolve() for target, _ in links(index) if target.endswith(".md")
    ]
    return [ROOT / "README.md", index, *(path for path in listed if path.parent == index.parent)]


def pages() -> list[pathlib.Path]:
    """Every page that people read."""
    others = [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
    found = [
        *manual(),
        *others,
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "k8s").rglob("*.md")),
    ]
    return list(dict.fromkeys(path for path in found if path.exists()))


def blocks(path: pathlib.Path) -> list[Block]:
    """All fenced blocks of a page."""
    found, opened, before = [], None, ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            need = _NEED.match(before)
            opened, text = (number, fence[1], need[1] if need else None), []
        elif opened is not None and fence:
            found.append(
                Block(
                    str(path.relative_to(ROOT)),
                    opened[0],
                    opened[1],
                    "\n".join(text) + "\n",
                    opened[2],
                )
            )
            opened = None
        elif opened is not None:
            text.append(line)
        before = line
    assert opened is None, f"{path}: a block without an end"
    return found


def prose(path: pathlib.Path) -> list[str]:
    """Return the lines of a page, those of fenced blocks as empty lines."""
    lines, inside = [], False
    for line in path.read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line) is not None
        lines.append("" if inside or fence else line)
        inside ^= fence
    return lines


def spans(path: pathlib.Path) -> list[str]:
    """Return the texts between single backticks."""
    return re.findall(r"`([^`]+)`", "\n".join(prose(path)))


def links(path: pathlib.Path) -> Iterator[tuple[str, int]]:
    """Targets of links and pictures, with their line numbers."""
    for number, line in enumerate(prose(path), 1):
        for target in _LINK.findall(re.sub(r"`[^`]*`", "", line)):
            yield target, number


def anchors(path: pathlib.Path) -> set[str]:
    """Return the anchors of a page, which GitHub makes of its headings."""
    names: list[str] = []
    for line in prose(path):
        if heading := re.match(r"#+ (.*)", line):
            slug = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            names.append(f"{slug}-{names.count(slug)}" if slug in names else slug)
    return set(names)


def first_cells(lines: list[str]) -> list[str]:
    """Return the first cell of each row of the tables in these lines, without the headers."""
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    rules = [i for i, cell in enumerate(rows) if set(cell) <= set("-:")]
    return [cell for i, cell in enumerate(rows) if i not in rules and i + 1 not in rules]


def section(path: pathlib.Path, heading: str) -> list[str]:
    """Lines of prose below a heading, up to the next one."""
    lines = prose(path)
    start = lines.index(heading) + 1
    return lines[
        start : next((i for i in range(start, len(lines)) if lines[i].startswith("#")), len(lines))
    ]


def programs() -> dict[str, tuple[str, str]]:
    """Return module and function of each console program of setup.py."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    return {name: (module, function) for name, module, function in _PROGRAM.findall(text)}
