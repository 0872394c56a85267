"""Summarise a preparation: counts, fingerprint, rejections, and the table that is printed."""

import collections
import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer import radiograph
from trainer.dataset import splits
from trainer.dataset.encode import MISSING, Encoded
from trainer.dataset.example import SPLITS, Example
from trainer.dataset.listing import OTHER_BODY_PART, Listing, Omission

REJECTIONS_FILE = "rejections.csv"


@dataclasses.dataclass(frozen=True)
class SplitCounts:
    """Counts the images of a split, their studies and patients, and the rejected files."""

    images: int
    studies: int
    patients: int
    positives: int
    rejected: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """Holds the result of `humerus-prepare`.

    Attributes:
      directory: the finished data set, for `tfds.builder_from_directory`.
      fingerprint: identifies the content of the source and all options that change the data set.
      splits: counts of `train`, `validation` and `test`.
      rejections: number of files that could not become images, by reason.
      omissions: number of files of the source that were not opened, by reason.
      warnings: what limits the use of the data, one sentence each.
      simulated: whether the source declares its images to be simulated.
      reused: whether the data set existed already.
      dry_run: whether nothing was written. The counts are then of listed files, and there is no
        fingerprint.
    """

    directory: str
    fingerprint: str
    splits: Mapping[str, SplitCounts]
    rejections: Mapping[str, int]
    omissions: Mapping[str, int]
    warnings: Sequence[str]
    simulated: bool
    reused: bool
    dry_run: bool = False

    @classmethod
    def from_plan(
        cls,
        directory: str,
        listing: Listing,
        examples: Iterable[Example],
        missing: Sequence[Example],
        simulated: bool,
    ) -> "Summary":
        """Summarise a dry run.

        Args:
          directory: where the data set would be written.
          listing: the files of the source.
          examples: the listed files with their splits.
          missing: those of the examples that do not exist.
          simulated: whether the source declares its images to be simulated.
        """
        absent = {example.path for example in missing}
        outcomes = [
            Encoded(example, sha256="", reason=MISSING if example.path in absent else None)
            for example in examples
        ]
        there = [outcome.example for outcome in outcomes if outcome.reason is None]
        warnings = [
            *listing.warnings,
            *splits.check_classes(there),
            *splits.warn_of_unnamed_patients(there),
        ]
        if missing:
            warnings.append(
                f"listed files that are missing: {len(missing)}, such as {missing[0].uri}"
            )
        rejections = {MISSING: len(missing)} if missing else {}
        return cls(
            directory,
            "",
            count_by_split(outcomes),
            rejections,
            count_omissions(listing.omissions),
            warnings,
            simulated,
            reused=False,
            dry_run=True,
        )

    @classmethod
    def from_metadata(cls, directory: str, metadata: Mapping[str, Any], reused: bool) -> "Summary":
        """Summarise a data set by its metadata."""
        return cls(
            directory=directory,
            fingerprint=metadata["fingerprint"],
            splits={split: SplitCounts(**counts) for split, counts in metadata["splits"].items()},
            rejections=dict(metadata["rejections"]),
            omissions=dict(metadata.get("omissions", {})),
            warnings=tuple(metadata["warnings"]),
            simulated=metadata["simulated"],
            reused=reused,
        )

    def format_table(self) -> str:
        """Format the counts as text, one line per split, followed by one line per remark."""
        columns = [field.name for field in dataclasses.fields(SplitCounts)]
        lines = [f"{'split':<10}" + "".join(f"{column:>10}" for column in columns)]
        for split, counts in self.splits.items():
            lines.append(
                f"{split:<10}" + "".join(f"{value:>10}" for value in dataclasses.astuple(counts))
            )
        for what, by_reason in (("rejected", self.rejections), ("omitted", self.omissions)):
            if by_reason:
                reasons = ", ".join(f"{reason} {count}" for reason, count in by_reason.items())
                where = "" if self.dry_run else f"; see {REJECTIONS_FILE} in the data set"
                lines.append(f"{what}: {reasons}{where}")
        if self.simulated:
            lines.append(
                "simulated radiographs: no figure made from them says anything about patients"
            )
        lines += [f"warning: {warning}" for warning in self.warnings]
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


def count_by_split(outcomes: Iterable[Encoded]) -> dict[str, SplitCounts]:
    """Count per split; studies and patients are those of the images that were taken."""
    by_split: dict[str | None, list[Encoded]] = collections.defaultdict(list)
    for outcome in outcomes:
        by_split[outcome.example.split].append(outcome)
    counts = {}
    for split in SPLITS:
        taken = [outcome.example for outcome in by_split[split] if outcome.reason is None]
        counts[split] = SplitCounts(
            images=len(taken),
            studies=len({example.study_id for example in taken}),
            patients=len({example.patient_id for example in taken}),
            positives=sum(example.label for example in taken),
            rejected=len(by_split[split]) - len(taken),
        )
    return counts


def count_omissions(omissions: Iterable[Omission]) -> dict[str, int]:
    """Count omitted files by reason."""
    return dict(sorted(collections.Counter(omission.reason for omission in omissions).items()))


def warn_of_duplicates(outcomes: Iterable[Encoded]) -> list[str]:
    """Return a warning each if identical files lie in several splits or have several labels."""
    copies: dict[str, list[Example]] = collections.defaultdict(list)
    for outcome in outcomes:
        if outcome.reason is None:
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


def warn_of_odd_images(outcomes: Iterable[Encoded]) -> list[str]:
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
