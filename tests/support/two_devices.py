"""Train the same way on one and on two logical devices, and write the results as JSON.

It is a process of its own, since the devices must exist before TensorFlow starts.

    python -m tests.support.two_devices OUTPUT
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
import tensorflow as tf

from tests.support import small_run, tiny_job
from trainer.training import fit, strategy
from trainer.training.build_run import build_run

CASES = {
    "last batch partly filled": {"count": 27},
    "last batch without a real example for one replica": {
        "count": 9,
        "optimizer": "sgd",
        "learning_rate": 0.1,
    },
    "fewer examples than one replica's share": {"count": 3},
    "dropout": {"count": 27, "dropout": 0.5},
    "clipped gradients": {
        "count": 27,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "clip_norm": 0.05,
    },
}


def run(replicas: int, pretrained: bool, count: int, **settings) -> dict:
    """Train a small run and return losses and accuracy per epoch, logits and weights."""
    chosen = strategy.create() if replicas == 2 else tf.distribute.get_strategy()
    assert chosen.num_replicas_in_sync == replicas
    changes = {
        "dropout": 0.0,
        "epochs": 2,
        "ema_decay": 0.8,
        "label_smoothing": 0.1,
        "depth_lr_decay": 0.5,
        "backbone_lr_factor": 0.5,
        "seed": 0,
    }
    train, validation = small_run.split(count), small_run.split(11, seed=9)
    with tempfile.TemporaryDirectory() as folder:
        if pretrained:
            path = pathlib.Path(folder) / "weights" / "model.keras"
            changes["weights"] = tiny_job.save_weights(path, seed=1)
        job = tiny_job.make_job(f"{folder}/run", **changes | settings)
        made = build_run(job, chosen, train, validation)
        state = fit.fit(made)
    return {
        "loss": [row["loss"] for row in state.history],
        "accuracy": [row["accuracy"] for row in state.history],
        "val_loss": [row["val_loss"] for row in state.history],
        "logits": made.predict(train).tolist(),
        "flipped": made.predict(train, axes=(1, 2)).tolist(),
        "weights": [float(np.abs(weight).sum()) for weight in made.model.get_weights()],
    }


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    found = {name: [run(n, True, **case) for n in (1, 2)] for name, case in CASES.items()}
    found["several steps per execution"] = [
        found["last batch partly filled"][0],
        run(2, True, count=27, steps_per_execution=3),
    ]
    everything = {**CASES["clipped gradients"], "dropout": 0.5, "head_epochs": 1}
    found["four micro-batches on each device"] = [
        run(1, True, **everything),
        run(2, True, **everything, gradient_accumulation_steps=4),
    ]
    found["batch statistics in training"] = [run(2, False, count=27, epochs=4)]
    with open(sys.argv[1], "w") as file:  # noqa: PTH123
        json.dump(found, file)


if __name__ == "__main__":
    main()
