"""These tests check that preparation and scoring make the same studies of the same files."""

import collections
import pathlib
from collections.abc import Iterable, Mapping

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_inference.inputs import sources as scorer
from batch_inference.inputs import tasks
from batch_inference.inputs.study_key import StudyKey
from batch_inference.options import Options
from trainer.dataset import sources
from trainer.files import study_folders

MURA = "train/XR_HUMERUS/patient0000{}/study{}_positive/image{}.png"


def write(root: pathlib.Path, paths: Iterable[str]) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def write_list(root: pathlib.Path, paths: Iterable[str]) -> pathlib.Path:
    """Write a manifest of the files, without studies."""
    manifest = root / "list.csv"
    manifest.write_text("path,label\n" + "".join(f"{path},1\n" for path in sorted(paths)))
    return manifest


def group(studies: Mapping[str, str]) -> set[frozenset[str]]:
    """Return the sets of images that share a study, of studies by the path of the image."""
    groups = collections.defaultdict(set)
    for path, study in studies.items():
        groups[study].add(path)
    return {frozenset(paths) for paths in groups.values()}


def group_prepared(source: pathlib.Path, layout: str) -> set[frozenset[str]]:
    examples = sources.list_source(str(source), layout, ("all",)).examples
    return group({example.path: example.study_id for example in examples})


def group_scored(location: pathlib.Path) -> set[frozenset[str]]:
    """Group inputs as the tasks of the pipeline are, whose own run `test_a_run` compares."""
    found = list(scorer.find(str(location)))
    oversized = study_folders.find_oversized(source.name for source in found if source.is_grouped)
    return group(
        {
            task.source.name: StudyKey()(task.source, {})
            for task in tasks.join_tasks(enumerate(found), oversized)
        }
    )


folders = st.lists(
    st.sampled_from(["ward", "exam 1", "train", "negative", "patient00007", "study1_positive"]),
    max_size=3,
)
trees = st.lists(st.tuples(folders, st.sampled_from([1, 2, 12, 13, 14])), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(trees)
def test_both_programs_make_the_same_studies_of_a_tree_and_of_a_list(tmp_path_factory, tree):
    root = tmp_path_factory.mktemp("tree")
    paths = {
        "/".join(["positive", *parts, f"{number}.png"])
        for parts, images in tree
        for number in range(images)
    }
    write(root, paths)
    prepared = group_prepared(root, "folders")
    assert group_scored(root) == prepared and frozenset().union(*prepared) == paths
    listed = write_list(root, paths)
    assert group_scored(listed) == group_prepared(listed, "manifest")


def test_files_that_are_no_images_make_no_folder_too_large(tmp_path):
    images = [f"positive/exam/{number}.png" for number in range(12)]
    beside = [f"positive/exam/{number}.JSON" for number in range(12)] + ["positive/exam/notes.txt"]
    together = {frozenset([*images, *beside])}
    write(tmp_path, [*images, *beside])
    assert group_scored(tmp_path) == group_prepared(tmp_path, "folders") == together


def test_both_programs_make_the_same_studies_of_mura(tmp_path):
    write(tmp_path / "in", (MURA.format(n % 3, n % 2, n) for n in range(60)))
    groups = group_prepared(tmp_path / "in", "mura")
    assert group_scored(tmp_path / "in") == groups and sorted(map(len, groups)) == [10] * 6
    listed = write_list(tmp_path / "in", frozenset().union(*groups))
    assert group_scored(listed) == group_prepared(listed, "manifest") == groups


persons = st.builds(
    "{}{}{}patient0000{}/study{}_{}/image{}.png".format,
    st.sampled_from(["", "MURA-v1.1/", "site A/", "site B/scans/"]),
    st.sampled_from(["", "train/", "valid/"]),
    st.sampled_from(["", "XR_HUMERUS/", "XR_ELBOW/"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(["positive", "negative"]),
    st.integers(1, 3),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(persons, min_size=1, max_size=30, unique=True))
def test_who_has_several_studies_in_folders_of_mura_is_one_patient(tmp_path_factory, paths):
    root = tmp_path_factory.mktemp("persons")

    def name_person(path: str) -> tuple[str, str]:
        site = path.split("/")[0] if path.startswith(("MURA", "site")) else ""
        return site, path[path.index("patient") :].split("/")[0]

    listed = root / "list.csv"
    rows = (f"{path},{int('positive' in path)}" for path in paths)
    listed.write_text("\n".join(["path,label", *rows]))
    expected = group({path: str(name_person(path)) for path in paths})
    examples = sources.list_source(str(listed), "manifest", ()).examples
    assert group({example.path: example.patient_id for example in examples}) == expected
    # Classes are the outermost folders of the other layout, and part no one in two.
    classes = [f"{path.split('_')[-1].split('/')[0]}/{path}" for path in paths]
    write(root / "in", classes)
    examples = sources.list_source(str(root / "in"), "folders", ()).examples
    named = {example.path.partition("/")[2]: example.patient_id for example in examples}
    assert group(named) == expected


@pytest.mark.parametrize(
    ("study_key", "oversized"), [("auto", [("positive/ward", 13)]), ("image", [])]
)
def test_a_run(tmp_path, study_key, oversized):
    """The pipeline counts folders as a plain loop does, in whatever order files come."""
    paths = [f"positive/ward/{n}.png" for n in range(13)] + [f"exam/{n}.png" for n in range(12)]
    write(tmp_path / "in", [*paths, *(f"positive/{n}.png" for n in range(14))])
    options = Options(str(tmp_path / "in"), "", str(tmp_path / "out"), study_key=study_key)
    with beam.Pipeline("FnApiRunner") as pipeline:
        found = pipeline | scorer.FindInputs(options)
        counted = found | tasks.FindOversizedFolders(study_key)
        assert_that(counted, equal_to(oversized))
        earlier = pipeline | beam.Create([], reshuffle=False)
        made = (found, earlier) | tasks.MakeTasks(counted)
        grouped = made | beam.Map(lambda task: (task.source.name, task.source.is_grouped))
        alone = {name for folder, _ in oversized for name in paths if name.startswith(folder)}
        expected = [
            (source.name, source.name not in alone) for source in scorer.find(options.input)
        ]
        assert_that(grouped, equal_to(expected), "check tasks")
