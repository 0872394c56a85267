"""Reading and decoding in many threads: what waits for storage and what takes memory."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from batch_inference.inputs import decode
from batch_inference.inputs.study_key import StudyKey
from batch_inference.inputs.tasks import Task
from batch_inference.outputs.records import Example, Source
from tests.batch_inference.conftest import picture
from tests.support.dicom_files import dicom_file
from tests.support.pictures import encode
from trainer import radiograph

THREADS, CORES = 8, 2


@pytest.mark.parametrize("all_frames", [False, True])
def test_many_are_read_at_a_time_and_few_decoded(monkeypatch, all_frames):
    all_read, content = (
        threading.Barrier(THREADS, timeout=30),
        dicom_file(picture(1)) if all_frames else encode(picture(1), "PNG"),
    )
    inside, most, lock = 0, 0, threading.Lock()

    def slowly(original):
        def call(*arguments):
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            done = original(*arguments)
            with lock:
                inside -= 1
            return done

        return call

    def read(uri):
        all_read.wait()
        return content

    monkeypatch.setattr(decode, "_decoding", threading.BoundedSemaphore(CORES))
    monkeypatch.setattr(decode.filesystem, "read", read)
    monkeypatch.setattr(
        radiograph,
        "frames" if all_frames else "read",
        slowly(getattr(radiograph, "frames" if all_frames else "read")),
    )
    task = decode.Decode(16, True, "m", StudyKey(), all_frames)
    with ThreadPoolExecutor(THREADS) as pool:
        results = [
            list(found)
            for found in pool.map(task, [Task(Source(f"{n}", f"{n}")) for n in range(2 * THREADS)])
        ]
    assert all(isinstance(found, Example) for (found,) in results) and len(results) == 2 * THREADS
    assert most == CORES
