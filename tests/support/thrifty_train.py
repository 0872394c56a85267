"""Run `humerus-train` of the pages in seconds: whatever the arguments, a tiny network trains for
one epoch.
"""

import sys

from tests.support import small_recipe
from trainer import main


def train() -> int:
    """Run the program with a changed `sys.argv`."""
    sys.argv[1:] = thriftily(sys.argv[1:])
    return main.train()


def thriftily(arguments: list[str]) -> list[str]:
    """Replace recipe, backbone and the numbers of epochs and folds in the arguments, and omit
    weights but those of earlier runs.
    """
    kept = [argument for argument in arguments if not argument.startswith("--config=")]
    weights = [a for a in arguments if a.startswith("--config.weights=") and not a.endswith(".h5")]
    folds = ["--folds=2"] if any(a.startswith("--folds=") for a in arguments) else []
    further = [
        "--config.backbone=tinynet",
        "--config.epochs=1",
        *(weights or ["--config.weights=none"]),
        *folds,
    ]
    return [f"--config={small_recipe.__file__}", *kept, *further]
