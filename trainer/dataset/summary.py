"""What a preparation came to: counts, fingerprint, refusals, and the table that the command prints."""

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

REJECTIONS_FILE = "rejections.csv"


@dataclasses.dataclass(frozen=True)
class SplitCounts:
    """Images, and the studies and patients they belong to, that a split holds; how many images are positive; how many were refused."""

    images: int
    studies: int
    patients: int
    positives: int
    rejected: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `humerus-prepare` came to.

    Attributes:
      directory: the finished data set, for `tfds.builder_from_directory`.
      fingerprint: of the sources' content and everything that decides what is made of it.
      splits: counts of `train`, `validation` and `test`.
      rejections: number of refused files by reason.
      warnings: what makes the data less than it seems, one sentence each.
      simulated: whether the source declares its images rendered.
      reused: whether the data set was there already.
      dry_run: whether nothing was written: the counts are of files that were listed, and there is no fingerprint yet.
    """

    directory: str
    fingerprint: str
    splits: Mapping[str, SplitCounts]
    rejections: Mapping[str, int]
    warnings: Sequence[str]
    simulated: bool
    reused: bool
    dry_run: bool = False

    @classmethod
    def of_plan(
        cls,
        directory: str,
        examples: Iterable[Example],
        missing: Sequence[Example],
        simulated: bool,
    ) -> "Summary":
        """Of what was listed and not yet read, with its splits, and of what was found `missing` of it."""
        absent = {example.path for example in missing}
        outcomes = [
            Encoded(example, sha256="", reason=MISSING if example.path in absent else None)
            for example in examples
        ]
        there = [outcome.example for outcome in outcomes if outcome.reason is None]
        warnings = [*splits.check_classes(there), *splits.unnamed_patients(there)]
        if missing:
            warnings.append(
                f"listed files that are missing: {len(missing)}, such as {missing[0].uri}"
            )
        rejections = {MISSING: len(missing)} if missing else {}
        return cls(
            directory,
            "",
            count(outcomes),
            rejections,
            warnings,
            simulated,
            reused=False,
            dry_run=True,
        )

    @classmethod
    def of(cls, directory: str, metadata: Mapping[str, Any], reused: bool) -> "Summary":
        """From the metadata that lies in the data set."""
        return cls(
            directory=directory,
            fingerprint=metadata["fingerprint"],
            splits={split: SplitCounts(**counts) for split, counts in metadata["splits"].items()},
            rejections=dict(metadata["rejections"]),
            warnings=tuple(metadata["warnings"]),
            simulated=metadata["simulated"],
            reused=reused,
        )

    def table(self) -> str:
        """The counts as text, one line per split, and one line for each thing to know about them."""
        columns = [field.name for field in dataclasses.fields(SplitCounts)]
        lines = [f"{'split':<10}" + "".join(f"{column:>10}" for column in columns)]
        for split, counts in self.splits.items():
            lines.append(
                f"{split:<10}" + "".join(f"{value:>10}" for value in dataclasses.astuple(counts))
            )
        if self.rejections:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.rejections.items())
            lines.append(
                f"rejected: {reasons}"
                + ("" if self.dry_run else f"; see {REJECTIONS_FILE} in the data set")
            )
        if self.simulated:
            lines.append(
                "simulated radiographs: no figure made from them says anything about patients"
            )
        lines += [f"warning: {warning}" for warning in self.warnings]
        if self.dry_run:
            lines.append(
                "dry run: these files were listed and not read, some may be refused; nothing was written"
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


def fingerprint(examples: Sequence[Example], hashes: Iterable[str], image_size: int) -> str:
    """SHA-256 over the images' content, whatever the source says of them, their splits, and how they become pixels.

    Independent of the order of the listing and of where the source lies.

    Args:
      examples: with their splits.
      hashes: SHA-256 of each one's content, in the same order.
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


def count(outcomes: Iterable[Encoded]) -> dict[str, SplitCounts]:
    """Counts per split; studies and patients are those of the images that were taken."""
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


def duplicates(outcomes: Iterable[Encoded]) -> list[str]:
    """A warning for each way in which files of the same bytes contradict the splits or the labels."""
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
                f"files of the same bytes {what}, such as {first.path} and {other.path}; {len(found)} in all"
            )
    return warnings


def rejections_csv(outcomes: Iterable[Encoded]) -> str:
    """The refused files as CSV: path, split, reason, detail; sorted by path."""
    refused = sorted(
        (outcome for outcome in outcomes if outcome.reason),
        key=lambda outcome: outcome.example.path,
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "split", "reason", "detail"])
    writer.writerows(
        [item.example.path, item.example.split, item.reason, item.detail] for item in refused
    )
    return text.getvalue()
