"""A run that is killed and stopped many times ends as an undisturbed one, bit for bit."""

import random
import signal

import pytest

from tests.support.commands import finish, log, start, stop_after
from tests.trainer.training.test_train import assert_same
from trainer.errors import EXIT_DONE, EXIT_STOPPED

EPOCHS, STEPS = 8, 32
FLAGS = (f"--config.epochs={EPOCHS}",)
KILLS, STOPS = 20, 5


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("devices", [1, 2])
def test_twenty_kills_and_five_stops_leave_no_trace(data_dir, tmp_path, devices):
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown where the test fails
    rng = random.Random(seed)
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    assert finish(data_dir, whole, *FLAGS, devices=devices) == EXIT_DONE, log(whole)[-3000:]
    # Steps of the run, its last one among them: there it is killed while it evaluates and exports.
    steps = [*sorted(rng.choices(range(1, STEPS), k=KILLS + STOPS - 2)), STEPS, STEPS]
    stops = set(rng.sample(range(KILLS + STOPS - 2), STOPS))
    for i, step in enumerate(steps):
        number = signal.SIGTERM if i in stops else signal.SIGKILL
        run = start(data_dir, disturbed, *FLAGS, *pace(rng), devices=devices)
        code = stop_after(run, disturbed, step, number, patience=within(i))
        assert code in ({EXIT_STOPPED, -number} if i in stops else {-number}), (
            i,
            step,
            log(disturbed)[-3000:],
        )
    assert finish(data_dir, disturbed, *FLAGS, devices=devices) == EXIT_DONE, log(disturbed)[-3000:]
    assert_same(disturbed, whole)


def pace(rng: random.Random) -> tuple[str, ...]:
    """Draw the steps between checkpoints and in a compiled call, which must change nothing."""
    return (
        f"--config.checkpoint_every_steps={rng.randint(1, 3)}",
        f"--config.steps_per_execution={rng.randint(1, 3)}",
    )


def within(i: int) -> float:
    """Return the most seconds from the step to the signal: none, or time to write or to start."""
    return (0.0, 0.05, 2.0)[i % 3]
