"""Read and decode files: waiting for storage, and what a file that harms its worker costs."""

import dataclasses
import hashlib
import pathlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from batch_inference.inputs import decode
from batch_inference.inputs.study_key import StudyKey
from batch_inference.inputs.tasks import Task
from batch_inference.outputs.records import Example, Rejection, Source
from tests.batch_inference.conftest import picture
from tests.support.dicom_files import dicom_file
from tests.support.pictures import encode
from trainer import radiograph
from trainer.drawing import legend, overlay
from trainer.drawing.legend import Legend
from trainer.workers import imaging
from trainer.workers.file_results import Wanted
from trainer.workers.pool import Pool

THREADS = 8
SIZE = 16
WANTED = Wanted(SIZE, picture=True)


@pytest.mark.parametrize("all_frames", [False, True])
def test_many_remote_files_are_read_at_a_time(monkeypatch, all_frames):
    all_read = threading.Barrier(THREADS, timeout=30)
    content = dicom_file(picture(1)) if all_frames else encode(picture(1), "PNG")

    def read(uri):
        all_read.wait()
        return content

    monkeypatch.setattr(decode.filesystem, "read", read)
    task = decode.Decode(WANTED, "m", StudyKey(), all_frames)
    with ThreadPoolExecutor(THREADS) as pool:
        sources = [Task(Source(f"gs://b/{n}", f"{n}")) for n in range(2 * THREADS)]
        results = [list(found) for found in pool.map(task, [[source] for source in sources])]
    assert all(isinstance(found, Example) for (found,) in results) and len(results) == 2 * THREADS


@pytest.mark.parametrize("style", ["overlay", "heatmap", "side_by_side"])
def test_pixels_and_pictures_are_those_of_this_process(tmp_path, style):
    path = tmp_path / "a.png"
    path.write_bytes(encode(picture(3), "PNG"))
    (found,) = decode.Decode(WANTED, "m", StudyKey())([Task(Source(str(path), "a.png"))])
    pixels = radiograph.read(path.read_bytes()).pixels
    assert (found.pixels == radiograph.letterbox(pixels, SIZE)).all()
    assert (found.picture == overlay.shrink(pixels)).all()
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    cam = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    drawn = overlay.draw(found.picture, cam, SIZE, 0.7, style, "jet")
    strip = Legend(0.7, "logits", "Grad-CAM", "m", 3, 4, SIZE, style, "jet")
    taken = tmp_path / "taken.png"
    taken.mkdir()
    paths, pictures = [str(tmp_path / "cams" / "a.png"), str(taken)], [(found.picture, cam)] * 2
    for with_strip in (False, True):
        made = legend.add(drawn, strip) if with_strip else drawn
        encoded = overlay.encode(made, "png")
        for number in (1, 2):
            written = imaging.Imaging().draw_many(
                pictures[:number], paths[:number], strip, with_strip, "png"
            )
            assert written == [None, encoded][:number]
        assert (
            imaging.Imaging().draw_many(pictures, [None] * 2, strip, with_strip, "png")
            == [encoded] * 2
        )
        assert (tmp_path / "cams" / "a.png").read_bytes() == encoded
    assert {path.name for path in tmp_path.rglob("*")} == {"a.png", "cams", "taken.png"}


HARM = {"crash": "decode_failed", "loop!": "too_slow", "alot!": "too_large"}


@pytest.mark.parametrize("group", [1, 4])
def test_a_file_that_harms_its_worker_costs_its_own_row_only(tmp_path, group):
    good = encode(picture(1), "PNG")
    for index in range(12):
        (tmp_path / f"good{index}.png").write_bytes(good)
    for start in HARM:
        (tmp_path / start).write_bytes(start.encode())
    names = sorted(path.name for path in tmp_path.iterdir())
    sources = [Task(Source(str(tmp_path / name), name)) for name in names]
    task = decode.Decode(WANTED, "m", StudyKey())

    def rows(task):
        with ThreadPoolExecutor(4) as threads:
            groups = [sources[start : start + group] for start in range(0, len(sources), group)]
            found = [row for rows in threads.map(task, groups) for row in rows]
        return dict(zip(names, found, strict=True))

    expected = rows(task)
    pool = Pool(2, memory=256 << 20, seconds=2.0)
    task = dataclasses.replace(task, imaging=_Harmed(pool))
    with pool.stop_on_error():
        harmed = rows(task)
    for name in names:
        content = (tmp_path / name).read_bytes()
        if name in HARM:
            assert isinstance(harmed[name], Rejection) and harmed[name].reason == HARM[name]
            assert harmed[name].sha256 == hashlib.sha256(content).hexdigest()
        else:
            assert (harmed[name].pixels == expected[name].pixels).all()
            assert harmed[name].sha256 == expected[name].sha256


class _Harmed(imaging.Imaging):
    """Decodes by a task that does what some files tell it."""

    DECODE = "tests.support.worker_tasks:crash_on_bytes"


@pytest.mark.parametrize("remote", [False, True])
def test_frames_after_a_crash_are_refused_one_by_one(tmp_path, monkeypatch, remote):
    pixels = np.stack([picture(n) for n in range(3)])
    path = pathlib.Path(tmp_path / "film.dcm")
    path.write_bytes(dicom_file(pixels, NumberOfFrames=3))
    file = path.read_bytes() if remote else str(path)
    found = list(imaging.Imaging().decode_frames(file, WANTED, range(3)))
    assert [one.square.shape for one in found] == [(SIZE, SIZE, 1)] * 3

    class Lost(imaging.Imaging):
        FRAMES = "tests.support.worker_tasks:crash"

    lost = list(Lost(Pool(1)).decode_frames(file, WANTED, range(3)))
    assert [one.refusal[0] for one in lost] == ["decode_failed"] * 3
    assert {one.sha256 for one in lost} == {hashlib.sha256(path.read_bytes()).hexdigest()}
