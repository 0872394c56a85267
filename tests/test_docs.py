"""Test what the pages promise: links, commands, flags, messages, codes, keys, modules."""

import ast
import dataclasses
import functools
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
import urllib.parse

import pytest

from batch_inference.outputs.records import REASONS, WARNINGS
from docs import architecture
from tests import test_architecture
from tests.support import documents
from tests.support.documents import ROOT, Block
from trainer import artifact, errors, local
from trainer.configs import default

DOCS = ROOT / "docs"
PAGES = documents.pages()
OF_TODAY = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""Pages that tell of the present; the changelog may name what is gone."""
BLOCKS = [
    block
    for page in [*documents.manual(), ROOT / "CONTRIBUTING.md"]
    for block in documents.blocks(page)
]
ELLIPSIS = "…"
"""Stands in a quoted message for what differs from run to run."""
OF_EVERY_PROGRAM = {"help", "helpfull", "flagfile", "version"}
NOT_OURS = {"build-arg", "logdir", "config.KEY"}
"""Flags of other programs that the text mentions, and what stands for any setting."""


def name(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def test_every_page_is_in_the_index():
    listed = set(documents.manual())
    assert not [name(page) for page in DOCS.glob("*.md") if page not in listed]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    broken = []
    for target, line in documents.links(page):
        address, _, anchor = target.partition("#")
        if urllib.parse.urlparse(target).scheme:
            continue
        file = (page.parent / address).resolve() if address else page
        if not file.exists() or (anchor and anchor not in documents.anchors(file)):
            broken.append(f"line {line}: {target}")
    assert not broken


def test_a_link_is_seen_and_an_anchor_is_made_as_on_github(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `--flag`, and more\n# Twice\n# Twice\n[x](y.md#z) `[no](link)`\n"
        "```\n[no](link)\n```\n![p](p.svg)\n"
    )
    assert list(documents.links(page)) == [("y.md#z", 4), ("p.svg", 8)]
    assert documents.anchors(page) == {"a---flag-and-more", "twice", "twice-1"}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_that_is_not_run_says_what_it_needs(block):
    assert block.language in {"", "bash", "python", "json", "yaml", "mermaid"}
    assert block.needs is None or (block.language == "bash" and block.needs in documents.NEEDS)
    is_run = block.page != "CONTRIBUTING.md"  # by tests/test_docs_commands.py
    assert is_run or block.needs or block.language != "bash"


@pytest.mark.parametrize("page", documents.manual(), ids=name)
def test_no_command_hides_from_the_tests(page):
    """Commands stand in ```bash blocks: neither indented nor in a block without a language."""
    unnamed = [
        line
        for block in documents.blocks(page)
        if not block.language
        for line in block.text.splitlines()
    ]
    lines = [line for line in documents.prose(page) if line.startswith("    ")] + unnamed
    assert not [line for line in lines if re.match(r"\s*\$?\s*(humerus-|make |python |pip )", line)]


@functools.cache
def flags_of(program: str) -> frozenset[str]:
    """Names of all flags that a console program tells of in its --helpfull."""
    module, function = documents.programs()[program]
    code = (
        f"import sys; from {module} import {function};"
        f" sys.argv = [{program!r}, '--helpfull']; sys.exit({function}())"
    )
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"^\s*--(?:\[no\])?([a-z][\w.]*)", done.stdout, re.MULTILINE)
    assert found, done.stdout
    return frozenset(found) | OF_EVERY_PROGRAM | {f"no{flag}" for flag in found}


@functools.cache
def settings() -> frozenset[str]:
    """`config.KEY` of every setting of the recipes."""
    config = default.get_config()
    nested = {
        f"config.{key}.{inner}"
        for key, value in config.items()
        if hasattr(value, "items")
        for inner in value
    }
    return frozenset({f"config.{key}" for key in config} | nested)


@functools.cache
def beam_options() -> frozenset[str]:
    from apache_beam.options.pipeline_options import PipelineOptions

    return frozenset(PipelineOptions([]).get_all_options())


def known_to(program: str) -> frozenset[str]:
    further = {"humerus-train": settings, "humerus-score": beam_options}.get(program, frozenset)
    return flags_of(program) | further()


def commands(block: Block) -> list[list[str]]:
    """Return the words of every command of ours in a block, with continued lines joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if "humerus-" in line]
    return [line for line in words if line and line[0].startswith("humerus-")]


def code(page: pathlib.Path) -> list[str]:
    """Every line of code on a page: in blocks, indented, or between backticks; continued lines
    joined.
    """
    fenced = "\n".join(block.text for block in documents.blocks(page))
    indented = "\n".join(line for line in documents.prose(page) if line.startswith("    "))
    return [
        line.strip()
        for line in [
            *f"{fenced}\n{indented}".replace("\\\n", " ").splitlines(),
            *documents.spans(page),
        ]
    ]


@pytest.mark.parametrize("page", OF_TODAY, ids=name)
def test_targets_tests_and_scripts_exist(page):
    targets = set(
        re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for line in code(page):
        words = [word for word in line.partition("#")[0].split() if "=" not in word]
        match [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []:
            case ["make", target, *_]:
                assert target in targets, line
            case ["pytest", file, *_]:
                assert (ROOT / file).exists(), line
            case ["python", "-m", module, *_] if module.split(".")[0] in (
                "trainer",
                "benchmarks",
                "docs",
            ):
                assert (ROOT / f"{module.replace('.', '/')}.py").exists(), line
            case ["python", file, *_] if file.endswith(".py"):
                assert (ROOT / file).exists(), line


@pytest.mark.parametrize("page", OF_TODAY, ids=name)
def test_flags_of_scripts_are_theirs(page):
    for line in code(page):
        if found := re.match(r"python (?:-m )?(benchmarks[./]\w+)", line):
            script = (ROOT / f"{found[1].replace('.', '/')}.py").read_text(encoding="utf-8")
            assert not [
                flag
                for flag in flags_in(line.split())
                if f'"--{flag}"' not in script and f'"{flag}"' not in script
            ], line


def flags_in(words: list[str]) -> list[str]:
    return [found[1] for word in words if (found := re.match(r"--([a-z][\w.-]*)", word))]


@pytest.mark.parametrize("block", [block for block in BLOCKS if commands(block)], ids=str)
def test_flags_of_commands_are_those_of_the_program(block):
    for program, *words in commands(block):
        assert program in documents.programs()
        assert set(flags_in(words)) <= known_to(program), (
            program,
            set(flags_in(words)) - known_to(program),
        )
        recipes = [word.partition("=")[2] for word in words if word.startswith("--config=")]
        assert all((ROOT / "trainer" / "configs" / f"{recipe}.py").exists() for recipe in recipes)


@functools.cache
def script_flags() -> frozenset[str]:
    """Return the flags of what is started as `python -m ...`: the demo and the benchmarks."""
    texts = [path.read_text(encoding="utf-8") for path in [*(ROOT / "benchmarks").glob("*.py")]]
    return frozenset(
        re.findall(r'(?:add_argument\(\s*"--|DEFINE_\w+\(\s*")([a-z]\w*)"', "\n".join(texts))
    ) | {field.name for field in dataclasses.fields(local.Options)}


@pytest.mark.parametrize("page", OF_TODAY, ids=name)
def test_flags_in_the_text_exist(page):
    known = (
        script_flags()
        | NOT_OURS
        | beam_options()
        | frozenset().union(*map(known_to, documents.programs()))
    )
    told = [
        flag
        for span in documents.spans(page)
        for flag in flags_in(span.split())
        if not span.startswith(("kubectl", "pip", "uv pip"))
    ]
    assert not {flag for flag in told if flag not in known}


def strings(path: pathlib.Path) -> list[str]:
    """Every text of a module, with `ELLIPSIS` where a value is put in."""

    def text(node: ast.expr) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(map(text, node.values))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return re.sub(r"%(\.\d+)?[a-z]\b", ELLIPSIS, node.value)
        return ELLIPSIS

    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        text(node) for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.Constant))
    ]


def messages() -> list[str]:
    lines = documents.prose(DOCS / "troubleshooting.md")
    return [cell.strip("`") for cell in documents.first_cells(lines)]


def says(program: str, quoted: str) -> bool:
    """Whether a text of the program can read as quoted: the same words in the same order, whatever
    stands for `ELLIPSIS`.
    """
    pieces = [piece for piece in quoted.split(ELLIPSIS) if piece.strip()]
    return re.search(".*".join(map(re.escape, pieces)), program, re.DOTALL) is not None


@functools.cache
def program_texts() -> tuple[str, ...]:
    return tuple(text for path in test_architecture.FILES for text in strings(path))


@pytest.mark.parametrize("quoted", messages())
def test_a_message_of_the_troubleshooting_page_is_one_of_the_programs(quoted):
    assert any(says(text, quoted) for text in program_texts())


def test_a_message_that_no_program_says_would_be_found():
    assert not any(says(text, "… holds nothing in the MIRA layout") for text in program_texts())
    assert says("… lacks its file …; copy it", "… lacks its file …") and not says(
        "… lacks its file …", "its file … lacks"
    )


def named_tests(text: str) -> list[tuple[str, str]]:
    """File and function (or nothing) of every test that a text names."""
    return re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", text)


def test_every_row_of_the_restart_matrix_names_a_test_that_exists():
    rows = [
        line
        for line in documents.section(DOCS / "kubernetes.md", "## Restarts and failures")
        if line.startswith("| ")
    ][1:]
    assert len(rows) > 15
    for row in rows:
        named = named_tests(row.rpartition(" | ")[2])
        assert named, row
        for file, function in named:
            text = (ROOT / file).read_text(encoding="utf-8")
            assert not function or f"def {function}(" in text, (file, function)


def test_exit_codes_are_those_of_the_programs():
    told = documents.first_cells(documents.section(DOCS / "exit-codes.md", "## Exit codes"))
    assert sorted(map(int, told)) == sorted(
        value for key, value in vars(errors).items() if key.startswith("EXIT_")
    )


def test_reason_codes_are_those_of_the_programs():
    lines = documents.section(DOCS / "exit-codes.md", "## Reason codes")
    told = {
        cells[1].strip(" `"): cells[2].strip()
        for line in lines
        if line.startswith("| `")
        for cells in [line.split("|")]
    }
    assert {code: meaning for code, meaning in told.items() if code != "missing"} == REASONS
    assert '"missing"' in (ROOT / "trainer/dataset/encode.py").read_text(encoding="utf-8")


def test_warning_codes_are_those_of_the_programs():
    lines = documents.section(DOCS / "exit-codes.md", "## Warning codes")
    rows = [line.split("|") for line in lines if line.startswith("| `")]
    assert {cells[1].strip(" `"): cells[2].strip() for cells in rows} == WARNINGS


def test_the_fields_of_model_json_are_those_of_the_schema():
    page = DOCS / "artifact.md"
    script = runpy.run_path(str(DOCS / "model_json.py"))
    assert page.read_text(encoding="utf-8") == script["page"](), "run: python docs/model_json.py"
    listed = documents.first_cells(documents.section(page, "## model.json"))
    names = {cell.strip("`") for cell in listed}
    assert set(artifact.Artifact.__dataclass_fields__) < names
    assert f"Format version {artifact.FORMAT_VERSION}." in page.read_text(encoding="utf-8")


def test_the_architecture_page_is_what_its_script_writes():
    """After a change of imports or of a module's docstring: python docs/architecture.py."""
    assert architecture.PAGE.read_text(encoding="utf-8") == architecture.page()


@pytest.mark.parametrize("package", architecture.PACKAGES)
def test_the_drawn_arrows_are_imports_and_imply_all_others(package):
    text = architecture.PAGE.read_text(encoding="utf-8")
    drawing = text.partition(f"<!-- {package} subpackages -->")[2].partition("<!-- /")[0]
    drawn = {
        (source, target)
        for source, targets in re.findall(r"(\w+) --> (.*)", drawing)
        for target in targets.split(" & ")
    }
    files = [path for path in test_architecture.FILES if path.is_relative_to(ROOT / package)]
    imported = {
        (test_architecture.room_of(path), room)
        for path in files
        for room in test_architecture.modules_of(package, test_architecture.imports(path))
        if room != test_architecture.room_of(path)
    }
    assert drawn <= imported
    implied = set(drawn)
    while longer := {(a, d) for a, b in implied for c, d in drawn if b == c} - implied:
        implied |= longer
    assert imported <= implied and not {(a, b) for a, b in implied if a == b}


@pytest.mark.parametrize(
    "heading", ["## One image's way from file to overlay", "## One setting's way from flag to step"]
)
def test_the_functions_of_the_two_walks_exist(heading):
    lines = documents.section(ROOT / "CONTRIBUTING.md", heading)
    named = re.findall(r"`(\w+)\.(?!py`)(\w+)`", "\n".join(lines))
    assert len(named) > 8
    for module, function in named:
        texts = [path.read_text() for path in test_architecture.FILES if path.stem == module]
        assert any(
            re.search(rf"^(?:(?:def|class) {function}\b|{function}\b.* = )", text, re.MULTILINE)
            for text in texts
        ), f"{module}.{function}"


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "trainer").rglob("*.md"))], ids=name)
def test_prose_is_wrapped_at_100_columns(page):
    """Tables, pictures, blocks of commands and a single long word may be wider."""
    assert not [
        line
        for line in documents.prose(page)
        if len(line) > 100 and " " in line.strip() and not line.startswith(("|", "![", "    "))
    ]
