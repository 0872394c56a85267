"""Put into words what an artifact records of its engines: which is used, which was refused, why."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from trainer.artifact import INT8_NETWORK, Artifact
from trainer.model_json.fields import EngineRecord

Records = Mapping[str, EngineRecord] | Mapping[str, Any]
"""Records of `model.json` by engine and precision, such as `openvino/int8`; keys may be missing."""


def identify(described: Artifact, name: str) -> str:
    """Return the name of an engine in rows, such as `openvino/int8@1c9a3f20`.

    After the @ stands an id of what `humerus-verify` made for the engine: the network in 8-bit
    arithmetic and the line that aligns its logits. The model's id does not cover them. Where there
    is neither, the name is as it came.

    Args:
      name: engine and precision.
    """
    made: dict[str, Any] = {}
    if line := described.engines.get(name, {}).get("alignment"):
        made["alignment"] = line
    stem = INT8_NETWORK.removesuffix("xml")
    if INT8_NETWORK.startswith(f"{name}."):
        made |= {file: sha for file, sha in described.files.items() if file.startswith(stem)}
    if not made:
        return name
    return f"{name}@{hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:8]}"


def explain(records: Records, name: str) -> str:
    """Return a sentence on the engine that is used: its speed, and the fastest refused one.

    Args:
      records: the records of the artifact.
      name: engine and precision that are used.
    """
    used: Mapping[str, Any] = records.get(name, {})
    speed = used.get("images_per_second")
    if not speed:
        return f"{name} is used"
    text = f"{name} is used ({speed:.0f} images/s when it was measured)"
    refused = [
        (record.get("images_per_second", 0.0), other, record.get("verdict", "no verdict recorded"))
        for other, record in records.items()
        if not record.get("within_tolerance") and record.get("device") == used.get("device")
    ]
    fastest, other, verdict = max(refused, default=(0.0, "", ""))
    if fastest <= speed:
        return text
    engine, _, precision = other.partition("/")
    return (
        f"{text}; {other} would be {fastest / speed:.1f} times as fast and was refused: {verdict}."
        f" --engine={engine} --precision={precision} forces it"
    )


def explain_fastest(records: Records) -> str:
    """Return a sentence on the engine that scoring takes on a machine like the one measured on."""
    accepted = [
        (record.get("images_per_second", 0.0), name)
        for name, record in records.items()
        if record.get("within_tolerance")
    ]
    if not accepted:
        return "no engine was measured; humerus-verify measures them"
    return explain(records, max(accepted)[1])
