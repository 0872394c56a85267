"""The sentence on engines, from records as `model.json` holds them."""

import pytest

from trainer.inference import engine_records


def measured(speed: float, good: bool = True, device: str = "CPU", **more) -> dict:
    return {"within_tolerance": good, "images_per_second": speed, "device": device, **more}


FLOAT32 = {"openvino/float32": measured(20.0)}
USED = "openvino/float32 is used (20 images/s when it was measured)"


def test_the_fastest_refused_engine_is_named_with_the_reason_and_what_forces_it():
    records = FLOAT32 | {
        "openvino/bfloat16": measured(80.0, good=False, verdict="AUROC may be worse"),
        "openvino/int8": measured(60.0, good=False, verdict="maps differ"),
        "tensorflow/float16": measured(900.0, good=False, device="GPU"),
    }
    assert engine_records.explain(records, "openvino/float32") == (
        f"{USED}; openvino/bfloat16 would be 4.0 times as fast and was refused: AUROC may be worse."
        " --engine=openvino --precision=bfloat16 forces it"
    )
    assert engine_records.explain_fastest(records) == engine_records.explain(
        records, "openvino/float32"
    )


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ({}, "openvino/float32 is used"),
        ({"openvino/float32": {}}, "openvino/float32 is used"),
        ({"openvino/bfloat16": {}}, "openvino/float32 is used"),
        (FLOAT32, USED),
        (FLOAT32 | {"openvino/bfloat16": {}}, USED),
        (FLOAT32 | {"openvino/bfloat16": {"within_tolerance": False, "error": "no"}}, USED),
        (FLOAT32 | {"openvino/int8": measured(10.0, good=False)}, USED),
        (
            FLOAT32 | {"openvino/int8": measured(30.0, good=False)},
            f"{USED}; openvino/int8 would be 1.5 times as fast and was refused: no verdict"
            " recorded. --engine=openvino --precision=int8 forces it",
        ),
    ],
)
def test_records_may_be_missing_or_incomplete(records, sentence):
    assert engine_records.explain(records, "openvino/float32") == sentence


def test_the_fastest_accepted_engine_is_the_one_that_scoring_takes():
    records = FLOAT32 | {
        "openvino/int8": measured(90.0, good=False, verdict="labels"),
        "openvino/bfloat16": measured(80.0),
        "tensorflow/float32": measured(15.0),
    }
    assert engine_records.explain_fastest(records).startswith("openvino/bfloat16 is used (80 ")


@pytest.mark.parametrize("records", [{}, {"openvino/bfloat16": {}}])
def test_without_an_accepted_engine_the_sentence_says_what_measures_them(records):
    assert "humerus-verify" in engine_records.explain_fastest(records)
