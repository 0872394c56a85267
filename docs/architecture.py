"""Write the drawings and tables of docs/architecture.md from imports and docstrings.

python docs/architecture.py
"""

import ast
import functools
import itertools
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("trainer", "batch_inference")


def page() -> str:
    """Return the page with everything between the markers `<!-- NAME -->` written anew."""
    text = PAGE.read_text(encoding="utf-8")
    for package in PACKAGES:
        written = {
            f"{package} subpackages": _drawing(package),
            f"{package} size": _size(package),
            f"{package} modules": _table(package),
        }
        for name, content in written.items():
            marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->\n)", re.DOTALL)
            text = marked.sub(lambda found, new=content: f"{found[1]}{new}\n{found[2]}", text)
    return text


@functools.cache
def modules(package: str) -> dict[str, ast.Module]:
    """Return the parsed source of each module by its dotted name below the package."""
    folder = ROOT / package
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(folder.rglob("*.py"))
        if path.name != "__init__.py"
    }


@functools.cache
def module_arrows(package: str) -> frozenset[tuple[str, str]]:
    """Return every pair of modules of which the first imports the second."""
    known = modules(package)
    found = set()
    for name, tree in known.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}."):
                inside = node.module.removeprefix(package).strip(".")
                for alias in node.names:
                    full = f"{inside}.{alias.name}".strip(".")
                    found |= {(name, target) for target in (full, inside) if target in known}
    return frozenset((source, target) for source, target in found if source != target)


def subpackages(package: str) -> list[str]:
    """Return the folders and the single modules directly below the package."""
    return sorted({_subpackage(module) for module in modules(package)})


def subpackage_arrows(package: str) -> frozenset[tuple[str, str]]:
    """Return every pair of subpackages of which the first imports something of the second."""
    pairs = {
        (_subpackage(source), _subpackage(target)) for source, target in module_arrows(package)
    }
    return frozenset((source, target) for source, target in pairs if source != target)


def heights(package: str) -> dict[str, int]:
    """Return the level of each subpackage: 1 without imports, else one above its highest import.

    Raises RecursionError where subpackages import each other in a circle.
    """
    arrows = subpackage_arrows(package)

    @functools.cache
    def height(subpackage: str) -> int:
        return 1 + max(
            (height(target) for source, target in arrows if source == subpackage), default=0
        )

    return {subpackage: height(subpackage) for subpackage in subpackages(package)}


def _subpackage(module: str) -> str:
    return module.partition(".")[0]


def _drawing(package: str) -> str:
    """Return the graph in Mermaid, without the arrows that follow from a chain of others."""
    arrows = subpackage_arrows(package)
    reach: dict[str, set[str]] = {}
    for subpackage in sorted(heights(package), key=heights(package).__getitem__):
        below = {target for source, target in arrows if source == subpackage}
        reach[subpackage] = below.union(*(reach[target] for target in below))
    drawn = [
        (source, target)
        for source, target in sorted(arrows)
        if not any(target in reach[other] for first, other in arrows if first == source)
    ]
    lines = []
    for source, pairs in itertools.groupby(drawn, key=lambda pair: pair[0]):
        lines.append(f"    {source} --> {' & '.join(target for _, target in pairs)}")
    alone = set(subpackages(package)) - {subpackage for arrow in arrows for subpackage in arrow}
    return "\n".join(
        [
            "```mermaid",
            "flowchart TD",
            *lines,
            *(f"    {subpackage}" for subpackage in sorted(alone)),
            "```",
        ]
    )


def _size(package: str) -> str:
    return (
        f"{len(modules(package))} modules in {len(subpackages(package))} subpackages, with"
        f" {len(subpackage_arrows(package))} arrows between them, on"
        f" {max(heights(package).values())} levels, without a circle."
    )


def _table(package: str) -> str:
    """Return a row per module with the first sentence of its docstring; single modules first."""
    lines = ["| module | what it does |", "|---|---|"]
    for module in sorted(modules(package), key=lambda name: ("." in name, name)):
        lines.append(f"| `{module.replace('.', '/')}` | {_summary(modules(package)[module])} |")
    return "\n".join(lines)


def _summary(tree: ast.Module) -> str:
    paragraph = (ast.get_docstring(tree) or "").partition("\n\n")[0]
    return " ".join(paragraph.split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
