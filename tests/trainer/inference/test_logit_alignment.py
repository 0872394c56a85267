"""A line brings the logits of an engine back to the reference's scale."""

import numpy as np
import pytest
import scipy.special

from trainer.inference import logit_alignment
from trainer.inference.engines import AlignedEngine
from trainer.inference.logit_alignment import Alignment
from trainer.model_json.scaling import Scaling

LOGIT = np.random.default_rng(0).normal(0.3, 2, 64).astype(np.float32)
SCALING = Scaling(temperature=1.7, intercept=-0.4)


class Shrinking:
    """An engine that compresses and shifts every logit."""

    def run(self, image):
        logit = (0.8 * LOGIT - 0.2).astype(np.float32)
        return {"probability": np.zeros(64, np.float32), "logit": logit, "cam": image}


def test_what_all_logits_have_in_common_is_undone_and_the_map_stays():
    image = np.ones((64, 2, 2), np.float32)
    line = logit_alignment.fit(Shrinking().run(image)["logit"][:40], LOGIT[:40])
    assert (line.slope, line.offset) == pytest.approx((1.25, 0.25), abs=1e-5)
    outputs = AlignedEngine(Shrinking(), line, SCALING).run(image)
    np.testing.assert_allclose(outputs["logit"], LOGIT, atol=1e-5)
    expected = scipy.special.expit(LOGIT / 1.7 - 0.4)
    np.testing.assert_allclose(outputs["probability"], expected, atol=1e-5)
    assert outputs["cam"] is image
    assert {outputs[name].dtype for name in ("logit", "probability")} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("logit", "reference"),
    [
        (np.zeros(5), np.arange(5.0)),  # all the same: any slope would do
        (np.arange(5.0), -np.arange(5.0)),  # would turn the order round
        (np.array([1.0]), np.array([2.0])),
        (np.array([1.0, np.nan]), np.array([2.0, 3.0])),
    ],
    ids=["constant", "reversed", "one", "not finite"],
)
def test_where_no_line_keeps_the_order_nothing_is_aligned(logit, reference):
    assert logit_alignment.fit(logit, reference) == Alignment(1.0, 0.0)
