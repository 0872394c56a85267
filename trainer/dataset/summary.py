"""Summarise a preparation: counts, fingerprint, rejections, and the table that is printed."""

import collections
import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from trainer import radiograph
from trainer.dataset.dataset_info import DatasetInfo
from trainer.dataset.encode import Encoded
from trainer.dataset.example import SPLITS, Example
from trainer.dataset.listing import OTHER_BODY_PART, Omission

REJECTIONS_FILE = "rejections.csv"
_COUNTED = ("images", "studies", "patients", "positives", "rejected")


@dataclasses.dataclass(frozen=True)
class Summary:
    """Holds the result of `humerus-prepare`.

    Attributes:
      directory: the finished data set, for `tfds.builder_from_directory`.
      info: its metadata.
      reused: whether the data set existed already.
      dry_run: whether nothing was written. The counts are then of listed files, and there is no
        fingerprint.
    """

    directory: str
    info: DatasetInfo
    reused: bool
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-able values."""
        shown = ("fingerprint", "splits", "rejections", "omissions", "warnings", "simulated")
        return {
            "directory": self.directory,
            **{name: getattr(self.info, name) for name in shown},
            "reused": self.reused,
            "dry_run": self.dry_run,
        }

    def format_table(self) -> str:
        """Format the counts as text, one line per split, followed by one line per remark."""
        info = self.info
        lines = [f"{'split':<10}" + "".join(f"{column:>10}" for column in _COUNTED)]
        for split, counts in info.splits.items():
            lines.append(f"{split:<10}" + "".join(f"{counts[name]:>10}" for name in _COUNTED))
        for what, by_reason in (("rejected", info.rejections), ("omitted", info.omissions)):
            if by_reason:
                reasons = ", ".join(f"{reason} {count}" for reason, count in by_reason.items())
                where = "" if self.dry_run else f"; see {REJECTIONS_FILE} in the data set"
                lines.append(f"{what}: {reasons}{where}")
        if info.simulated:
            lines.append(
                "simulated radiographs: no figure made from them says anything about patients"
            )
        lines += [f"warning: {warning}" for warning in info.warnings]
        if self.dry_run:
            lines.append(
                "dry run: these files were listed but not read, some may be refused; "
                "nothing was written"
            )
        done = (
            "would be written"
            if self.dry_run
            else "already prepared"
            if self.reused
            else "prepared"
        )
        lines.append(f"{done}: {self.directory}")
        return "\n".join(lines)


def compute_fingerprint(examples: Sequence[Example], hashes: Iterable[str], image_size: int) -> str:
    """Compute the SHA-256 of everything that decides what the data set contains.

    That is the content of the files, what the source says about them, their splits, and the
    preprocessing. The order of the listing and the place of the source do not matter.

    Args:
      examples: the files with their splits.
      hashes: SHA-256 of the content of each file, in the same order.
      image_size: side of the square in pixels.
    """
    rows = {
        item.path: [
            digest,
            item.label,
            item.patient_id,
            item.study_id,
            item.split,
            dict(item.attributes),
        ]
        for item, digest in zip(examples, hashes, strict=True)
    }
    contract = [image_size, radiograph.PREPROCESSING["version"], rows]
    return hashlib.sha256(json.dumps(contract, sort_keys=True).encode()).hexdigest()


def count_by_split(outcomes: Iterable[Encoded]) -> dict[str, dict[str, int]]:
    """Count as `DatasetInfo.splits`; studies and patients are those of images that were taken."""
    by_split: dict[str | None, list[Encoded]] = collections.defaultdict(list)
    for outcome in outcomes:
        by_split[outcome.example.split].append(outcome)
    counts = {}
    for split in SPLITS:
        taken = [outcome.example for outcome in by_split[split] if outcome.reason is None]
        counts[split] = {
            "images": len(taken),
            "studies": len({example.study_id for example in taken}),
            "patients": len({example.patient_id for example in taken}),
            "positives": sum(example.label for example in taken),
            "rejected": len(by_split[split]) - len(taken),
        }
    return counts


def count_omissions(omissions: Iterable[Omission]) -> dict[str, int]:
    """Count omitted files by reason."""
    return dict(sorted(collections.Counter(omission.reason for omission in omissions).items()))


def list_duplicate_warnings(outcomes: Iterable[Encoded]) -> list[str]:
    """Return a warning each if identical files lie in several splits or have several labels."""
    copies: dict[str, list[Example]] = collections.defaultdict(list)
    for outcome in outcomes:
        if outcome.reason is None and outcome.sha256:
            copies[outcome.sha256].append(outcome.example)
    groups = list(copies.values())
    warnings = []
    for what, key in (("lie in more than one split", "split"), ("have both labels", "label")):
        if found := [
            group for group in groups if len({getattr(example, key) for example in group}) > 1
        ]:
            first = found[0][0]
            other = next(
                example for example in found[0] if getattr(example, key) != getattr(first, key)
            )
            warnings.append(
                f"files of the same bytes {what}, such as {first.path} and {other.path}; "
                f"{len(found)} in all"
            )
    return warnings


def list_image_warnings(outcomes: Iterable[Encoded]) -> list[str]:
    """Return a sentence for each of `radiograph.WARNINGS` that images carry."""
    paths = collections.defaultdict(list)
    for outcome in outcomes:
        for code in outcome.warnings:
            paths[code].append(outcome.example.path)
    return [
        f"images with the warning {code}: {len(found)}, such as {found[0]}"
        f" ({radiograph.WARNINGS[code]})"
        for code, found in sorted(paths.items())
    ]


def format_rejections(outcomes: Iterable[Encoded], omissions: Iterable[Omission]) -> str:
    """Format rejected and omitted files as CSV: path, split, reason, detail; sorted by path.

    Omitted files have no split. Files of other body parts, which may be many, are only counted.
    """
    rows: list[tuple[str, str | None, str, str]] = [
        (outcome.example.path, outcome.example.split, outcome.reason, outcome.detail)
        for outcome in outcomes
        if outcome.reason
    ]
    rows += [
        (omission.path, "", omission.reason, omission.detail)
        for omission in omissions
        if omission.reason != OTHER_BODY_PART
    ]
    rows.sort(key=lambda row: row[0])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "split", "reason", "detail"])
    writer.writerows(rows)
    return text.getvalue()
