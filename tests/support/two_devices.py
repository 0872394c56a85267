"""Trains the same way on one and on two logical devices and writes what came of it as JSON; a process of its own, since the
devices must be there before TensorFlow starts.

    python -m tests.support.two_devices OUTPUT
"""

import json
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

from tests.support import small_recipe, small_run
from trainer.dataset import input_pipeline
from trainer.network import model as model_lib
from trainer.training import fit, loop, optimization, strategy
from trainer.training.exponential_moving_average import WeightsAverage

CASES = {
    "last batch partly filled": {"count": 27},
    "last batch without a real example for one replica": {
        "count": 9,
        "optimizer": "sgd",
        "learning_rate": 0.1,
    },
    "fewer examples than one replica's share": {"count": 3},
}


def run(replicas: int, pretrained: bool, count: int, **settings) -> dict:
    """Losses per epoch, logits and weights of a small run."""
    config = small_recipe.get_config()
    config.update(
        {
            "dropout": 0.0,
            "epochs": 2,
            "global_batch_size": 8,
            "ema_decay": 0.8,
            "depth_lr_decay": 0.5,
            "backbone_lr_factor": 0.5,
            **settings,
        }
    )
    chosen = strategy.create() if replicas == 2 else tf.distribute.get_strategy()
    assert chosen.num_replicas_in_sync == replicas
    split = small_run.split(count)
    input_pipeline.per_replica_batch_size(config.global_batch_size, replicas)
    keras.utils.set_random_seed(0)
    with chosen.scope():
        architecture = model_lib.Architecture(
            config.backbone, config.pooling, tuple(config.head_widths), config.dropout
        )
        model = model_lib.build(architecture, 32, "none", seed=1)
        steps = input_pipeline.steps_per_epoch(count, config.global_batch_size)
        phases = optimization.phases(model, config, steps, pretrained)
        average = WeightsAverage(model.trainable_variables, config.ema_decay)
        objective = loop.Objective(0.1, (0.8, 1.3))
        ours = loop.Loop(model, chosen, phases, objective, average)
    with tempfile.TemporaryDirectory() as workdir:
        made = fit.Run(ours, average, objective, split, small_run.split(11, seed=9), workdir)
        state = fit.fit(made, config)
    return {
        "loss": [row["loss"] for row in state.history],
        "accuracy": [row["accuracy"] for row in state.history],
        "val_loss": [row["val_loss"] for row in state.history],
        "logits": ours.predict(split, config.global_batch_size).tolist(),
        "weights": [float(np.abs(weight).sum()) for weight in model.get_weights()],
    }


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    found = {name: [run(n, True, **case) for n in (1, 2)] for name, case in CASES.items()}
    found["several steps per execution"] = [
        found["last batch partly filled"][0],
        run(2, True, count=27, steps_per_execution=3),
    ]
    found["batch statistics in training"] = [run(2, False, count=27, epochs=4)]
    with open(sys.argv[1], "w") as file:  # noqa: PTH123
        json.dump(found, file)


if __name__ == "__main__":
    main()
