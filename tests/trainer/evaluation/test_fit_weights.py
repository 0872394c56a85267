"""Weights of models whose logits are averaged, on scores whose best weights are known."""

import numpy as np
import pytest

from trainer.evaluation import fit_weights
from trainer.evaluation.cases import Cases


def make_cases(label):
    names = np.arange(len(label)).astype(str)
    zeros = np.zeros(len(label))
    return Cases(zeros + 0.5, zeros, label, names, names, names)


def draw(count, noises, seed=0):
    """Labels, and logits of models that see the same evidence with independent noise."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(0, 1.5, count)
    label = (rng.random(count) < 1 / (1 + np.exp(-2 * evidence))).astype(int)
    logits = np.stack([2 * evidence + rng.normal(0, noise, count) for noise in noises])
    return logits, make_cases(label)


@pytest.mark.parametrize("seed", range(5))
def test_models_of_the_same_quality_weigh_the_same(seed):
    logits, cases = draw(200, (1.0, 1.0, 1.0), seed)
    np.testing.assert_allclose(fit_weights.choose(logits, cases), [1 / 3] * 3)


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_knows_nothing_loses_its_weight(seed):
    logits, cases = draw(600, (0.3, 0.3), seed)
    noise = np.random.default_rng(seed + 100).normal(0, 4, 600)
    weights = fit_weights.choose(np.stack([logits[0], noise]), cases)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    assert weights[0] > 0.9


def test_a_model_that_ranks_the_wrong_way_round_gets_none():
    logits, cases = draw(600, (0.3, 0.3))
    np.testing.assert_allclose(
        fit_weights.choose(np.stack([logits[0], -logits[1]]), cases), [1, 0], atol=1e-6
    )


@pytest.mark.parametrize("label", [[0, 1] * 4, [0] * 30])
def test_too_few_cases_or_one_class_give_equal_weights(label):
    logits = np.random.default_rng(0).normal(size=(2, len(label)))
    np.testing.assert_array_equal(
        fit_weights.choose(logits, make_cases(np.array(label))), [0.5] * 2
    )
