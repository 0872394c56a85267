r"""Put what each variant of the recipe gains into one table, with a column for each set of images.

    python -m benchmarks.recipe_summary --workdir=runs/recipe_choice noisy_300 noisy_900 fracatlas

Reads what `benchmarks.recipe_choice` wrote under these names.
"""

import argparse
import pathlib

import numpy as np

from benchmarks.recipe_choice import BASE, LAST, MIRRORED, RULES, VARIANTS, compare_to, read_runs
from benchmarks.tables import markdown, replace_table


def tabulate(workdir: pathlib.Path, names: list[str]) -> str:
    """Return a row for each variant, and what AUROC gains in each column, with the interval and the
    number of trainings.
    """
    before = {name: read_runs(workdir / name / BASE) for name in names}
    found = {"the recipe": [_describe(before[name]) for name in names]}
    found["mirror image scored too"] = [
        _format_gain(before[name], before[name], MIRRORED) for name in names
    ]
    for variant in VARIANTS:
        runs = [read_runs(workdir / name / variant) for name in names]
        if variant != BASE and any(runs):
            found[variant] = [
                _format_gain(of_name, before[name], LAST)
                for of_name, name in zip(runs, names, strict=True)
            ]
    return markdown(["", *names], [[row, *cells] for row, cells in found.items()])


def _describe(runs: dict[str, dict[str, np.ndarray]]) -> str:
    _, (mean, *_) = compare_to(runs, {key: RULES[LAST](scores) for key, scores in runs.items()})
    return f"AUROC {mean:.3f}, {len(runs)} trainings"


def _format_gain(
    runs: dict[str, dict[str, np.ndarray]], before: dict[str, dict[str, np.ndarray]], rule: str
) -> str:
    logits = {key: RULES[rule](scores) for key, scores in runs.items() if key in before}
    if not logits:
        return ""
    count, (_, gain, low, high) = compare_to(before, logits)
    return f"{gain:+.3f} ({low:+.3f} to {high:+.3f}), {count}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("names", nargs="+", help="of the sets, in the order of the columns")
    options = parser.parse_args()
    replace_table("recipe_summary", tabulate(options.workdir, options.names))


if __name__ == "__main__":
    main()
