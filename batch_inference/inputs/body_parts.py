"""Find images of other body parts than the model was made for, by what DICOM files say."""

import dataclasses
from typing import Any

from batch_inference.outputs import progress
from batch_inference.outputs.records import OTHER_BODY_PART, Example, Rejection, reject_example
from trainer.artifact import Artifact

_TERMS = {
    "XR_ELBOW": {"ELBOW"},
    "XR_FINGER": {"FINGER", "THUMB", "HAND"},
    "XR_FOREARM": {"FOREARM", "RADIUS", "ULNA", "RADIUSULNA"},
    "XR_HAND": {"HAND", "FINGER", "THUMB"},
    "XR_HUMERUS": {"HUMERUS", "UPPERARM"},
    "XR_SHOULDER": {"SHOULDER", "CLAVICLE", "SCAPULA", "ACJOINT"},
    "XR_WRIST": {"WRIST"},
}
"""DICOM terms (PS3.16, annex L) for the body parts of MURA."""
_WIDER_TERMS = {"ARM", "EXTREMITY", "UPPERLIMB"}
"""Terms that include all body parts of MURA."""


def list_terms(described: Artifact) -> frozenset[str]:
    """Return the DICOM terms of what the model was made for; none where that is not known."""
    parts = [str(part).upper() for part in described.dataset.get("body_parts") or ()]
    if not parts or not set(parts) <= _TERMS.keys():
        return frozenset()
    return frozenset(_WIDER_TERMS.union(*(_TERMS[part] for part in parts)))


@dataclasses.dataclass(frozen=True)
class CheckBodyPart:
    """Adds a warning to an example of another body part, or rejects it; returns all else as it is.

    Attributes:
      terms: DICOM terms of what the model was made for; none checks nothing.
      model_id: the id that rejections name as their model.
      refuse: whether to reject instead of warn.
    """

    terms: frozenset[str]
    model_id: str
    refuse: bool

    def __call__(self, decoded: Any) -> Any:
        if not isinstance(decoded, Example):
            return decoded
        part = decoded.tags.get("body_part")
        if not part or not self.terms or part in self.terms:
            return decoded
        if self.refuse:
            return self._reject(decoded, part)
        warnings = tuple(sorted({*decoded.warnings, OTHER_BODY_PART}))
        return dataclasses.replace(decoded, warnings=warnings)

    def _reject(self, example: Example, part: str) -> Rejection:
        progress.advance()
        expected = ", ".join(sorted(self.terms))
        detail = f"the file names the body part {part}; the model was made for {expected}"
        return reject_example(example, OTHER_BODY_PART, detail, self.model_id)
