"""These tests check that an epoch holds each example once and augments it within its ranges."""

import concurrent.futures
import dataclasses
import json
import math
import multiprocessing
import shutil
import tempfile
import threading

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import small_disk, small_run
from trainer.dataset import input_pipeline, prepared_split
from trainer.dataset.augmentation import Augmentation
from trainer.dataset.prepare import prepare
from trainer.errors import ConfigError, DataError
from trainer.options import PrepareOptions

OFF = Augmentation(
    horizontal_flip=False,
    vertical_flip=False,
    rotation=0.0,
    shift=0.0,
    zoom=0.0,
    contrast=0.0,
    brightness=0.0,
)


class Workers:
    """Workers stand in for a strategy of many hosts, each with an input pipeline of its own."""

    def __init__(self, workers: int, replicas_per_worker: int):
        self.workers, self.local = workers, replicas_per_worker
        self.replicas = workers * replicas_per_worker

    def distribute_datasets_from_function(self, pipeline):
        return [
            pipeline(tf.distribute.InputContext(self.workers, worker, self.replicas))
            for worker in range(self.workers)
        ]

    def global_batches(self, split, global_batch_size, **options) -> list[dict[str, np.ndarray]]:
        """Return the global batches, replica after replica."""
        per_worker = [
            list(dataset.as_numpy_iterator())
            for dataset in input_pipeline.make_batches(split, self, global_batch_size, **options)
        ]
        steps = len(per_worker[0]) // self.local
        found = []
        for step in range(steps):
            shares = [
                share
                for mine in per_worker
                for share in mine[step * self.local : (step + 1) * self.local]
            ]
            found.append(
                {key: np.concatenate([share[key] for share in shares]) for key in shares[0]}
            )
        return found


ONE = Workers(1, 1)


def make_numbered(count: int, size: int = 16) -> prepared_split.Split:
    """Return a split whose image i holds the number i in its first two pixels."""
    split = small_run.split(count, size)
    split.images[:, 0, 0, 0], split.images[:, 0, 1, 0] = (
        np.arange(count) // 256,
        np.arange(count) % 256,
    )
    return split


def read_numbers(batch) -> np.ndarray:
    """Return the numbers that `make_numbered` wrote into the images."""
    return batch["image"][:, 0, 0, 0].astype(int) * 256 + batch["image"][:, 0, 1, 0]


@given(
    count=st.integers(1, 70),
    workers=st.integers(1, 3),
    local=st.integers(1, 3),
    per_replica=st.integers(1, 6),
    epoch=st.integers(0, 5),
    shuffle=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_each_example_counts_once_an_epoch_for_any_workers_and_batch(
    count, workers, local, per_replica, epoch, shuffle
):
    split, size = make_numbered(count), workers * local * per_replica
    found = Workers(workers, local).global_batches(
        split, size, epoch=epoch, seed=3, shuffle=shuffle
    )
    assert len(found) == math.ceil(count / size)
    counted = np.concatenate([read_numbers(batch)[batch["weight"] > 0] for batch in found])
    assert sorted(counted) == list(range(count))
    for batch in found:
        assert len(batch["weight"]) == size
        real = batch["weight"] > 0
        np.testing.assert_allclose(batch["weight"][real], 1 / real.sum(), rtol=1e-6)
        np.testing.assert_array_equal(batch["label"], split.labels[read_numbers(batch)])
    one = ONE.global_batches(split, size, epoch=epoch, seed=3, shuffle=shuffle)
    for ours, theirs in zip(found, one, strict=True):
        np.testing.assert_array_equal(read_numbers(ours), read_numbers(theirs))


def test_without_shuffle_the_order_is_that_of_the_split():
    found = Workers(2, 2).global_batches(make_numbered(21), 8)
    assert np.concatenate([read_numbers(batch) for batch in found])[:21].tolist() == list(range(21))


def test_each_epoch_and_each_seed_has_its_own_reproducible_order():
    split = make_numbered(40)

    def order(seed, epoch):
        return np.concatenate(
            [
                read_numbers(b)
                for b in ONE.global_batches(split, 8, seed=seed, epoch=epoch, shuffle=True)
            ]
        ).tolist()

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(found) for found in orders}) == 6
    assert order(1, 2) == orders[-1]
    first = {order(0, epoch)[0] for epoch in range(12)}
    assert len(first) > 4, "the first example hardly changes from epoch to epoch"


@pytest.mark.parametrize("first_step", [1, 3, 4])
def test_an_epoch_begun_in_the_middle_is_the_tail_of_the_whole_one(first_step):
    split, augmentation = small_run.split(27, 16), Augmentation()
    options = {"epoch": 2, "seed": 5, "shuffle": True, "augmentation": augmentation}
    whole = Workers(1, 2).global_batches(split, 6, **options)
    tail = Workers(1, 2).global_batches(split, 6, first_step=first_step, **options)
    assert len(whole) == 5 and len(tail) == 5 - first_step
    for ours, theirs in zip(tail, whole[first_step:], strict=True):
        for key in ("image", "label", "weight"):
            np.testing.assert_array_equal(ours[key], theirs[key])


def test_any_number_of_replicas_sees_the_same_augmented_pixels():
    split = small_run.split(22, 24)
    options = {
        "epoch": 1,
        "seed": 7,
        "shuffle": True,
        "augmentation": Augmentation(vertical_flip=True),
    }
    one, many = (
        ONE.global_batches(split, 12, **options),
        Workers(2, 3).global_batches(split, 12, **options),
    )
    for ours, theirs in zip(one, many, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])


def test_augmentation_differs_between_epochs_and_between_copies():
    split = small_run.split(1, 24).select(np.zeros(8, int))
    first, second = (
        ONE.global_batches(split, 8, epoch=epoch, augmentation=Augmentation())[0]["image"]
        for epoch in (0, 1)
    )
    assert len({image.tobytes() for image in [*first, *second]}) == 16


class ReadByTwo:
    """These images return a batch only while another batch is requested."""

    def __init__(self, images: np.ndarray):
        self.shape, self._images, self._both = (
            images.shape,
            images,
            threading.Barrier(2, timeout=60),
        )

    def __getitem__(self, rows):
        self._both.wait()
        return self._images[rows]


def read_two_batches_at_once() -> bool:
    """Return whether batches are read concurrently with deterministic ops; needs a new process."""
    tf.config.experimental.enable_op_determinism()
    split = small_run.split(16, 16)
    batches = ONE.global_batches(dataclasses.replace(split, images=ReadByTwo(split.images)), 4)
    return all(
        np.array_equal(batch["image"], split.images[i * 4 : i * 4 + 4])
        for i, batch in enumerate(batches)
    )


def find_devices_of_batches() -> set[str]:
    """Return the devices of batches, with a second CPU as the GPU; needs a new process."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    second = tf.config.list_logical_devices("CPU")[1]
    tf.config.list_logical_devices = lambda kind: [second]
    batches = input_pipeline.make_batches(small_run.split(8, 16), tf.distribute.get_strategy(), 4)
    assert_untuned(batches)
    return {tensor.device.rpartition(":")[2] for batch in batches for tensor in batch.values()}


def assert_untuned(batches: tf.data.Dataset) -> None:
    """Check that no thread tunes the input, since the end of an epoch would wait for it."""
    assert batches.options().autotune.enabled is False


def run_in_new_process(function):
    """Return the result of the function in a new process."""
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ) as process:
        return process.submit(function).result()


def test_reading_takes_several_cores_although_ops_are_deterministic():
    assert run_in_new_process(read_two_batches_at_once)


def test_batches_wait_on_the_only_gpu():
    assert run_in_new_process(find_devices_of_batches) == {"1"}


def test_no_thread_tunes_the_input():
    assert_untuned(
        input_pipeline.make_batches(small_run.split(8, 16), tf.distribute.get_strategy(), 4)
    )


def augment(
    images: np.ndarray, copies: int, augmentation: Augmentation, seed: int = 0
) -> np.ndarray:
    """Augment uint8 [size, size] by the pipeline; return uint8 [copies, size, size]."""
    split = small_run.split(copies, images.shape[0])
    split.images[:] = images[None, :, :, None]
    return ONE.global_batches(split, copies, seed=seed, augmentation=augmentation)[0]["image"][
        ..., 0
    ]


def make_augmentation(**ranges) -> Augmentation:
    """Return an augmentation with only these ranges."""
    return Augmentation(**{**OFF.__dict__, **ranges})


def make_spots(size: int, *centres: tuple[float, float]) -> np.ndarray:
    """Return Gaussian spots of brightness 240, float64 [size, size].

    The centres are (x, y) from the centre of the top left pixel.
    """
    y, x = np.mgrid[:size, :size]
    return np.max(
        [240 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 3.0**2)) for cx, cy in centres],
        axis=0,
    )


def find_centroid(image: np.ndarray) -> np.ndarray:
    """Return (x, y) of the centre of mass, from the middle of the image."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] - (image.shape[0] - 1) / 2
    weight = image.astype(float)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("size", [31, 48, 224])
def test_with_all_ranges_at_zero_every_grey_level_stays_bit_for_bit(size):
    image = np.random.default_rng(0).integers(0, 256, (size, size), np.uint8)
    image.ravel()[:256] = np.arange(256)
    np.testing.assert_array_equal(augment(image, 2, OFF), np.stack([image, image]))


@pytest.mark.parametrize("size", [31, 48])
@pytest.mark.parametrize("name, axis", [("horizontal_flip", 1), ("vertical_flip", 0)])
def test_a_flip_is_an_exact_mirror_about_half_the_time(size, name, axis):
    image = np.random.default_rng(1).integers(0, 256, (size, size), np.uint8)
    found = augment(image, 200, make_augmentation(**{name: True}))
    mirrored = [np.array_equal(one, np.flip(image, axis)) for one in found]
    kept = [np.array_equal(one, image) for one in found]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 70 <= sum(mirrored) <= 130  # 4.2 standard deviations of a fair coin


def test_rotation_turns_about_the_middle_by_up_to_the_stated_angle():
    size, radius = 65, 20
    image = np.rint(make_spots(size, (32 + radius, 32), (32, 32))).astype(np.uint8)
    angles = []
    for one in augment(image, 150, make_augmentation(rotation=30.0)):
        x, y = find_centroid(
            one
        )  # of a spot in the middle and one beside it: half way between them
        angles.append(math.degrees(math.atan2(y, x)))
        turned = cv2.warpAffine(
            image, cv2.getRotationMatrix2D((32, 32), -angles[-1], 1.0), (size, size)
        )
        np.testing.assert_allclose(one.astype(int), turned.astype(int), atol=8)
    assert 27 < np.max(angles) <= 30.1 and -30.1 <= np.min(angles) < -27
    assert np.std(angles) == pytest.approx(30 / math.sqrt(3), rel=0.15)


def test_shift_moves_by_up_to_the_stated_fraction_of_the_side():
    size = 64
    image = np.rint(make_spots(size, (31.5, 31.5))).astype(np.uint8)
    moves = np.array(
        [find_centroid(one) for one in augment(image, 200, make_augmentation(shift=0.1))]
    )
    assert np.abs(moves).max() <= 6.45 and np.abs(moves).max() > 6.0
    assert np.std(moves, axis=0) == pytest.approx([6.4 / math.sqrt(3)] * 2, rel=0.15)
    assert abs(np.corrcoef(moves.T)[0, 1]) < 0.25


def test_zoom_scales_about_the_middle_by_up_to_the_stated_factor():
    image = np.rint(make_spots(65, (32 + 16, 32), (32 - 16, 32))).astype(np.uint8)
    halves = augment(image, 150, make_augmentation(zoom=0.25))[:, :, 33:]
    distances = np.array([(np.arange(1, 33) * half.sum(0)).sum() / half.sum() for half in halves])
    assert distances.max() == pytest.approx(
        16 * 1.25, rel=0.03
    ) and distances.min() == pytest.approx(16 / 1.25, rel=0.03)


def test_black_stays_black_and_contrast_is_a_gamma_curve():
    ramp = np.zeros((32, 32), np.uint8)
    ramp[8:24] = np.linspace(0, 255, 32).astype(np.uint8)
    found = augment(ramp, 100, make_augmentation(contrast=0.5))
    assert not found[:, :8].any() and not found[:, 24:].any() and (found[:, 8:24, -1] == 255).all()
    middle = found[:, 10, 16] / 255.0
    exponents = np.log(middle) / np.log(ramp[10, 16] / 255.0)
    assert exponents.max() == pytest.approx(1.5, abs=0.06) and exponents.min() == pytest.approx(
        1 / 1.5, abs=0.06
    )
    for one, exponent in zip(found, exponents, strict=True):
        np.testing.assert_allclose(one[10], 255 * (ramp[10] / 255.0) ** exponent, atol=2.5)


def test_brightness_is_a_gain_that_saturates():
    grey = np.zeros((32, 32), np.uint8)
    grey[4:28, :16], grey[4:28, 16:] = 100, 250
    found = augment(grey, 100, make_augmentation(brightness=0.2))
    gains = found[:, 10, 5] / 100.0
    assert gains.max() == pytest.approx(1.2, abs=0.02) and gains.min() == pytest.approx(
        1 / 1.2, abs=0.02
    )
    assert not found[:, :4].any()
    np.testing.assert_allclose(found[:, 10, 20], np.minimum(250 * gains, 255), atol=1.6)


def test_what_leaves_the_square_is_black():
    white = np.full((40, 40), 255, np.uint8)
    found = augment(white, 60, make_augmentation(rotation=45.0))
    assert (found[:, 20, 20] == 255).all()
    assert any(one[0, 0] == 0 for one in found)


@pytest.mark.parametrize(
    "size, replicas, nearest", [(16, 3, "15 or 18"), (3, 8, "8"), (17, 2, "16 or 18")]
)
def test_a_batch_that_does_not_divide_names_the_nearest_that_do(size, replicas, nearest):
    with pytest.raises(
        ConfigError, match=f"{size} doesn't divide among {replicas} replicas.* {nearest}$"
    ):
        input_pipeline.compute_per_replica_batch_size(size, replicas)
    assert input_pipeline.compute_per_replica_batch_size(24, 8) == 3


def test_a_batch_that_does_not_divide_into_micro_batches_names_the_nearest_that_do():
    with pytest.raises(
        ConfigError,
        match=r"=16 doesn't divide among 2 replicas with gradient_accumulation_steps=3.* 12 or 18$",
    ):
        input_pipeline.compute_per_replica_batch_size(16, 2, 3)
    assert input_pipeline.compute_per_replica_batch_size(24, 2, 3) == 12


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("prepared")
    prepare(
        PrepareOptions(
            str(small_run.write_source(root / "source")),
            "manifest",
            str(root / "data"),
            image_size=small_run.SIZE,
        )
    )
    return str(root / "data")


def test_a_split_holds_the_pixels_labels_and_names_of_its_source(data_dir):
    split = prepared_split.load_split(data_dir, "train")
    images, labels = small_run.pictures(small_run.SPLITS["train"], small_run.SIZE, seed=0)
    assert len(split) == 26 and split.images.dtype == np.uint8
    for image, label, path, patient in zip(
        split.images, split.labels, split.path, split.patient_id, strict=True
    ):
        number = int(path.removeprefix("train").removesuffix(".png"))
        np.testing.assert_array_equal(image, images[number])
        assert label == labels[number] and patient == f"train{number // 2}"


def test_memory_and_disk_hold_the_same(data_dir):
    memory, disk = (
        prepared_split.load_split(data_dir, "train", cache) for cache in ("memory", "disk")
    )
    assert isinstance(disk.images, np.memmap) and not isinstance(memory.images, np.memmap)
    np.testing.assert_array_equal(memory.images, disk.images)
    ours, theirs = (
        ONE.global_batches(split, 8, shuffle=True)[0]["image"] for split in (memory, disk)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_images_that_do_not_fit_are_a_clear_error(data_dir, tmp_path, monkeypatch):
    with small_disk.mounted(tmp_path / "disk", 32) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(
            OSError,
            match=rf"^{disk} has no room for 0.0 GB of decoded .* \(No space left .* "
            "set TMPDIR to a folder",
        ):
            prepared_split.load_split(data_dir, "train", "disk")
    with pytest.raises(
        ConfigError, match=r"GB of decoded images don't fit into memory; set --config\.cache=disk"
    ):
        prepared_split.allocate((2**36, 2**10, 2**10, 1), "memory")


def test_an_unknown_cache_or_split_is_refused(data_dir):
    with pytest.raises(ConfigError, match="cache='ram': expected auto, memory or disk"):
        prepared_split.load_split(data_dir, "train", "ram")
    with pytest.raises(DataError, match=r"no split 'holdout'; it has .*train"):
        prepared_split.load_split(data_dir, "holdout")


def test_select_keeps_the_columns_together():
    split = make_numbered(9)
    chosen = split.select(np.array([7, 2, 2]))
    assert chosen.path.tolist() == ["train7", "train2", "train2"] and chosen.labels.tolist() == [
        1,
        0,
        0,
    ]
    assert (
        read_numbers({"image": chosen.images[:]}).tolist() == [7, 2, 2]
        and len(chosen.attributes) == 3
    )


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"null", b"\x93\xfe\x00 binary"])
@pytest.mark.parametrize("name", ["metadata.json", "dataset_info.json", "features.json"])
def test_a_damaged_description_is_one_sentence_with_the_way_out(data_dir, tmp_path, name, content):
    copied = shutil.copytree(data_dir, tmp_path / "data")
    (path,) = copied.glob(f"radiographs/*/*/{name}")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=r"; (prepare it again|make one) with humerus-prepare"):
        prepared_split.read_dataset_info(str(copied))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("body_parts", None, "`body_parts`"),
        ("splits", 3, "`splits`"),
        ("fingerprint", None, "`fingerprint`"),
        ("image_size", "wide", "`image_size`"),
        ("image_size", 96, "images have 96 px"),
    ],
)
def test_wrong_metadata_are_one_sentence_with_the_way_out(data_dir, tmp_path, field, value, said):
    copied = shutil.copytree(data_dir, tmp_path / "data")
    (path,) = copied.glob("radiographs/*/*/metadata.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(DataError, match=rf"{said}.*; prepare it again with .*--overwrite$"):
        prepared_split.read_dataset_info(str(copied))


@pytest.mark.parametrize("kept", [0, 3], ids=["no record", "some records"])
def test_a_shard_that_is_cut_off_is_one_sentence_with_the_way_out(data_dir, tmp_path, kept):
    copied = shutil.copytree(data_dir, tmp_path / "data")
    (shard,) = copied.glob("radiographs/*/*/*train.tfrecord*")
    records = list(tf.data.TFRecordDataset(str(shard)).take(kept).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for record in records:
            writer.write(record)
    with pytest.raises(
        DataError, match=rf"26 elements but .* only {kept} .*--overwrite$"
    ) as caught:
        prepared_split.load_split(str(copied), "train")
    assert "{{" not in str(caught.value) and "\n" not in str(caught.value)
