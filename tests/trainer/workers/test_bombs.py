"""More of each kind of file that exhausts a decoder: each ends as a reason or a picture."""

import numpy as np
import pytest

from tests.support import bombs
from trainer.workers import file_results, imaging
from trainer.workers.pool import Pool

SIZE = 32


@pytest.fixture(scope="module")
def pool():
    made = Pool(1)
    with made.stop_on_error():
        yield made


@pytest.mark.parametrize("kind", bombs.KINDS)
@pytest.mark.parametrize(
    "seeds", [range(6), pytest.param(range(6, 60), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_each_file_is_a_reason_or_a_picture(pool, kind, seeds):
    workers = imaging.Imaging(pool)
    for seed in seeds:
        content = bombs.KINDS[kind](np.random.default_rng(seed))
        found = workers.decode(content, SIZE)
        if found.refusal:
            reason, detail = found.refusal
            assert reason in file_results.REASONS and detail, f"{kind}, seed {seed}"
        else:
            assert found.square.shape == (SIZE, SIZE, 1), f"{kind}, seed {seed}"
        assert found.refusal is None or found.refusal[0] != "decode_failed", f"{kind}, seed {seed}"
