"""The root file system of the image `score` carries out the rendered Job on ten files.

As in a pod: the Job's command, arguments, environment and user, a read-only root, its own volumes,
no network and no capabilities.
"""

import json
import os
import pathlib
import subprocess

import cv2
import pytest

from tests.batch_inference.conftest import VERIFIED, picture
from tests.support import manifests, tiny_artifact

ROOT = pathlib.Path(os.environ["HUMERUS_IMAGE_ROOT"]).resolve()
USER = 65532
CONTAINER = r"""
set -e
root=$1 volumes=$2 user=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind "$volumes/data" "$root/mnt"
mount --bind "$volumes/flags" "$root/media"
mount -t tmpfs tmpfs "$root/tmp"
chmod 1777 "$root/tmp"
mount -t tmpfs tmpfs "$root/dev"
mkdir "$root/dev/shm"
chmod 1777 "$root/dev/shm"
for device in null zero random urandom; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid="$user" --regid="$user" --clear-groups \
  --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
"""Mounts what a container has, then becomes its first process."""


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> pathlib.Path:
    """Make a volume with a small model and ten radiographs, and the mounted flags."""
    folder = tmp_path_factory.mktemp("volumes")
    data = folder / "data"
    tiny_artifact.make(data / "runs" / "first" / "artifact", engines=VERIFIED)
    incoming = data / "incoming"
    incoming.mkdir()
    for index in range(10):
        cv2.imwrite(str(incoming / f"image{index}.png"), picture(index, 48, 64))
    flags = folder / "flags"
    flags.mkdir()
    config = manifests.named(manifests.overlay("score-cpu"), "ConfigMap", "humerus-flags")
    for name, text in config["data"].items():
        (flags / name).write_text(text)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", data], check=True)
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o111)
    return folder


def run_in_image(volumes: pathlib.Path, *words: str) -> subprocess.CompletedProcess:
    """Run a command as the pod's user, with the environment that the image and the pod give."""
    image = {"PATH": "/opt/humerus/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
    return subprocess.run(
        [
            *("unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"),
            *("sh", "-c", CONTAINER, "sh", str(ROOT), str(volumes), str(USER), *words),
        ],
        env={**image, "PATH": f"{image['PATH']}:/usr/sbin:/sbin", "HOME": "/tmp"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_the_root_can_not_be_written_to_and_the_user_is_the_pods(volumes):
    script = "for place in / /etc /opt/humerus /usr; do touch $place/x && echo $place; done; id -u"
    script += "; touch /tmp/x /dev/shm/x /mnt/x; grep CapEff /proc/self/status"
    done = run_in_image(volumes, "sh", "-c", script)
    assert done.stdout.split() == [str(USER), "CapEff:", "0000000000000000"], done
    assert done.stderr.count("Read-only file system") == 4, done.stderr
    assert "/tmp" not in done.stderr and "/mnt" not in done.stderr


def test_the_job_scores_ten_files(volumes):
    job = manifests.named(manifests.overlay("score-cpu"), "Job", "score")
    container = job["spec"]["template"]["spec"]["containers"][0]
    values = {"STORAGE": "/mnt", "INPUT": "/mnt/incoming", "RUN": "first"}
    words = []
    for word in (*container["command"], *container["args"]):
        for name, value in values.items():
            word = word.replace(f"$({name})", value)
        words.append(word.replace("/etc/humerus", "/media"))
    done = run_in_image(volumes, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    output = volumes / "data" / "scored" / "first"
    summary = json.loads((output / "summary.json").read_text())
    assert summary["scored"] == 10
    rows = [
        json.loads(line)
        for file in output.glob("predictions.jsonl*")
        for line in file.read_text().splitlines()
    ]
    assert len(rows) == 10 and all(0 <= row["probability"] <= 1 for row in rows)
    assert {path.stat().st_uid for path in output.rglob("*")} == {USER}
