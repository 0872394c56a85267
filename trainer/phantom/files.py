"""Write simulated radiographs in MURA's layout: a complete folder or none at all."""

import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import shutil
import sys
from typing import Any

import cv2
import tqdm
from absl import logging

from trainer.errors import ConfigError
from trainer.phantom import plan
from trainer.phantom.render import View, render
from trainer.storage import is_remote

VERSION = "1"
ROOT = "MURA-v1.1"


def encode(view: View) -> bytes:
    """Return the view as a PNG file, grey or with three equal channels."""
    pixels = cv2.cvtColor(view.pixels, cv2.COLOR_GRAY2BGR) if view.colour else view.pixels
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_patient(root: pathlib.Path, seed: int, patient: int) -> dict[str, list[dict[str, Any]]]:
    """Write one patient's files; return each image's findings by its path relative to `root`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, study in enumerate(plan.plan_studies(seed, patient)[1]):
        name = f"study{number + 1}_{'positive' if study.label else 'negative'}"
        folder = pathlib.PurePosixPath(
            plan.choose_split(patient), "XR_HUMERUS", f"patient{patient:05d}", name
        )
        (root / folder).mkdir(parents=True)
        for image in range(study.images):
            view = render(seed, patient, number, image)
            path = folder / f"image{image + 1}.png"
            (root / path).write_bytes(encode(view))
            found[str(path)] = [dataclasses.asdict(finding) for finding in view.findings]
    return found


def write(output: str, patients: int = 400, seed: int = 0) -> dict[str, int]:
    """Write OUTPUT/MURA-v1.1 and return counts of patients and images.

    A finished folder of the same version, seed and number of patients is kept. Any other folder
    raises `ConfigError`.
    """
    if is_remote(output):
        raise ConfigError(
            f"--output of simulated radiographs must be a local folder, got {output}; "
            "write locally, then copy it"
        )
    root, note = pathlib.Path(output) / ROOT, describe(patients, seed)
    if root.exists():
        return count_finished_folder(root, note)
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"--output must be a folder that can be written, got {output} ({error.strerror})"
        ) from error
    try:
        findings = write_patients(partial, patients, seed)
        (partial / "findings.json").write_text(
            json.dumps(findings, indent=1, sort_keys=True) + "\n"
        )
        (partial / "SIMULATED.txt").write_text(note)
        partial.rename(root)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(
            f"{root} can't be written ({error.strerror or error}); remove the cause and start the "
            "same command again"
        ) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    logging.info(
        "wrote %d simulated radiographs of %d patients to %s", len(findings), patients, root
    )
    return {"patients": patients, "images": len(findings)}


def write_patients(root: pathlib.Path, patients: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Write all images; return the findings of each by its path.

    Two threads help, because NumPy and OpenCV release the interpreter lock for most of the work.
    """
    findings: dict[str, list[dict[str, Any]]] = {}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(write_patient, root, seed, patient) for patient in range(1, patients + 1)
        ]
        try:
            for job in tqdm.tqdm(
                jobs, desc="simulating", unit=" patients", disable=not sys.stderr.isatty()
            ):
                findings.update(job.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return findings


def describe(patients: int, seed: int) -> str:
    """Return the note beside the images; two folders with the same note hold the same images."""
    return (
        "These radiographs are SIMULATED by humerus-phantom. "
        "They show no patient and prove nothing about patients.\n"
        f"version: {VERSION}\nseed: {seed}\npatients: {patients}\n"
    )


def count_finished_folder(root: pathlib.Path, note: str) -> dict[str, int]:
    """Return the counts of the finished folder `root` if it is what `note` describes."""
    written = root / "SIMULATED.txt"
    if not written.is_file() or written.read_text(errors="replace") != note:
        raise ConfigError(
            f"expected to write simulated radiographs to {root}, "
            "but it exists and holds something else; remove it, or name another --output"
        )
    findings = _read_findings(root)
    missing = [path for path in findings if not (root / path).is_file()]
    if missing:
        raise ConfigError(
            f"{root} lacks {len(missing)} of its {len(findings)} images, "
            f"such as {missing[0]}; remove the folder"
        )
    logging.info("kept the %d simulated radiographs that are in %s", len(findings), root)
    return {"patients": len({path.split("/")[2] for path in findings}), "images": len(findings)}


def _read_findings(root: pathlib.Path) -> dict[str, Any]:
    """Return the findings of each image of a finished folder, by the image's path.

    Raises:
      ConfigError: they are missing or damaged.
    """
    with contextlib.suppress(OSError, ValueError, RecursionError):
        findings = json.loads((root / "findings.json").read_text())
        if isinstance(findings, dict) and findings:
            return findings
    raise ConfigError(
        f"{root / 'findings.json'} is missing or damaged (expected the findings of each image); "
        f"remove {root}, and the same command writes it again"
    )
