"""Lists of inputs: which they name, what they carry, and what is refused of them."""

import pytest

from batch_inference.inputs import manifest, sources, study_key
from trainer.dataset import manifest as training_manifest
from trainer.errors import DataError
from trainer.files import manifest_columns


def write(tmp_path, text: str, name: str = "list.csv", encoding: str = "utf-8") -> str:
    (tmp_path / name).write_bytes(text.encode(encoding))
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('a.png\n"b.png\nc.png\nd.png\n', 3),
        ('"a.png"\n"b.png\n"c.png"\n"d.png"\n', 3),
        ('a.png\n"b.png"x\n', 3),
    ],
)
def test_a_quotation_mark_that_is_not_closed_swallows_no_row(tmp_path, rows, line):
    uri = write(tmp_path, f"path\n{rows}")
    with pytest.raises(DataError, match=f"line {line} is not CSV: .*; correct the row"):
        list(manifest.read_lines(uri))


@pytest.mark.parametrize("surplus", ["", ",", ", ,"])
def test_more_cells_than_the_header_has_are_refused_unless_blank(tmp_path, surplus):
    uri = write(tmp_path, f"path,ward\na.png,1{surplus}\n")
    assert list(manifest.read_lines(uri)) == [manifest.Line("a.png", "", (("ward", "1"),))]
    uri = write(tmp_path, f"path,ward\na.png,1\nleft, lateral.png,2{surplus}\n")
    with pytest.raises(DataError, match=r"line 3: expected 2 cells as in the header, got [345]"):
        list(manifest.read_lines(uri))


def test_csv_with_quotes_line_breaks_and_short_lines(tmp_path):
    uri = write(
        tmp_path,
        'ward,uri,study\r\n1,"b/odd, ""name"".png",s1\r\n'
        '"two\nlines",a.png\r\n9,,s2\r\n0,c.png,,\r\n',
    )
    assert manifest.read_carried_columns(uri) == ["ward"]
    assert list(manifest.read_lines(uri)) == [
        manifest.Line('b/odd, "name".png', "s1", (("ward", "1"),)),
        manifest.Line("a.png", "", (("ward", "two\nlines"),)),
        manifest.Line("c.png", "", (("ward", "0"),)),
    ]
    found = list(sources.find(uri))
    assert [source.uri for source in found] == [
        f"{tmp_path}/{line.path}" for line in manifest.read_lines(uri)
    ]
    assert [source.carried for source in found] == [
        line.carried for line in manifest.read_lines(uri)
    ]


@pytest.mark.parametrize("column", manifest_columns.NAMES["path"])
def test_the_column_of_paths_has_several_names(tmp_path, column):
    assert [
        line.path
        for line in manifest.read_lines(write(tmp_path, f"{column}\na.png\n", encoding="utf-8-sig"))
    ] == ["a.png"]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_manifest_as_table_programs_write_it(tmp_path, separator):
    uri = write(
        tmp_path,
        separator.join(["Ward", " Path"]) + "\n" + separator.join(["a, b", "a.png"]) + "\n",
    )
    assert manifest.read_carried_columns(uri) == ["Ward"]
    assert list(manifest.read_lines(uri)) == [manifest.Line("a.png", "", (("Ward", "a, b"),))]


@pytest.mark.parametrize("before", ["\n", "sep=;\r\n", '"sep=;"\n \n', "\n\nsep=;\n"])
def test_a_header_may_come_after_blank_lines_and_the_line_of_excel(tmp_path, before):
    uri = write(tmp_path, f'{before}Ward;path;"a,b,c,d"\n3;a.png;x\n"')
    assert manifest.read_carried_columns(uri) == ["Ward", "a,b,c,d"]
    with pytest.raises(DataError, match=f"line {3 + before.count(chr(10))} is not CSV"):
        list(manifest.read_lines(uri))
    uri = write(tmp_path, f"{before}Ward;path\n3;a.png\n")
    (line,) = manifest.read_lines(uri)
    assert line == manifest.Line("a.png", "", (("Ward", "3"),))
    assert line.number == 2 + before.count("\n")


@pytest.mark.parametrize("column", manifest_columns.NAMES["study"])
def test_studies_go_by_the_names_that_training_knows_and_belong_to_their_patient(tmp_path, column):
    uri = write(
        tmp_path,
        f"{column.title()},Patient_ID,path\ns1,p1,a.png\ns1,p2,b.png\n,p2,c.png\ns1,,d.png\n",
    )
    lines = list(manifest.read_lines(uri))
    assert [line.study for line in lines] == ["p1/s1", "p2/s1", "", "s1"]
    kept = [] if column == "study" else [column.title()]
    assert manifest.read_carried_columns(uri) == [*kept, "Patient_ID"]
    assert list(manifest.read_study_columns(uri)) == [*kept, "Patient_ID", "study"]
    for by in manifest.read_study_columns(uri):
        named = study_key.make_study_key(by, None, uri)(next(iter(sources.find(uri))), {})
        assert named == {"Patient_ID": "p1"}.get(by, "p1/s1")


def test_a_second_column_for_studies_is_taken_as_it_stands(tmp_path):
    uri = write(tmp_path, "path,patient,study,study_id\na.png,p1,s1,e1\n")
    (source,) = sources.find(uri)
    assert study_key.make_study_key("study_id", None, uri)(source, {}) == "e1"


@pytest.mark.parametrize(
    ("header", "labelled"),
    [
        ("path,label", True),
        ("path,label,sha256,probability", True),
        ("uri,label,probability,logit,study,sha256", False),
        ("path", False),
    ],
)
def test_rows_of_predictions_are_no_labels(tmp_path, header, labelled):
    assert manifest.has_labels(write(tmp_path, f"{header}\n")) == labelled


def test_a_slash_in_the_name_of_a_patient_makes_no_study_of_another(tmp_path):
    rows = "a.png,1,a/b,c\nb.png,0,a,b/c\nc.png,1,a%2Fb,c\n"
    uri = write(tmp_path, f"path,label,patient,study\n{rows}")
    studies = [line.study for line in manifest.read_lines(uri)]
    assert len(set(studies)) == 3 and studies[1] == "a/b/c"
    listed = training_manifest.list_source(uri, str(tmp_path), ()).examples
    assert [example.study_id for example in listed] == studies


@pytest.mark.parametrize("written", ["Mu\u0308ller Anna", "M\u00fcller\u00a0Anna", "Müller  Anna"])
def test_a_patient_has_one_name_however_a_program_writes_it(tmp_path, written):
    rows = f"a.png,1,Müller Anna,1\nb.png,1,{written},1\n"
    uri = write(tmp_path, f"path,label,patient,study\n{rows}")
    assert {line.study for line in manifest.read_lines(uri)} == {"Müller Anna/1"}
    listed = training_manifest.list_source(uri, str(tmp_path), ()).examples
    assert {(each.patient_id, each.study_id) for each in listed} == {
        ("Müller Anna", "Müller Anna/1")
    }


def test_training_and_scoring_agree_on_the_studies_of_a_manifest(tmp_path):
    uri = write(tmp_path, "path,label,file,patient,study id\na.png,1,x,p1,1\nb.png,0,y,p2,1\n")
    listed = training_manifest.list_source(uri, str(tmp_path), ()).examples
    trained = [(example.path, example.study_id) for example in listed]
    assert (
        [(line.path, line.study) for line in manifest.read_lines(uri)]
        == trained
        == [("a.png", "p1/1"), ("b.png", "p2/1")]
    )


def test_a_column_of_ours_is_carried_under_another_name(tmp_path):
    uri = write(tmp_path, "path,label,Reason,ward,uri\na.png,positive,fell,3,x\n")
    names = ["manifest_label", "manifest_Reason", "ward", "manifest_uri"]
    assert manifest.read_carried_columns(uri) == names
    assert next(iter(manifest.read_lines(uri))).carried == tuple(
        zip(names, ("positive", "fell", "3", "x"), strict=True)
    )


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("photo", "has no column path: .* found photo; path may also be called file, image, uri, "),
        ("", "has no column path: .* found a.png,1,2"),
        ("path,label,manifest_label", "different names, found manifest_label,manifest_label"),
        ("path,,ward", "column 2 has no name in the header"),
        ("path,ward,ward", "different names, found path,ward,ward"),
        ("path,ward,Ward", "different names, found path,ward,ward"),
    ],
)
def test_columns_that_cannot_be_carried_are_refused(tmp_path, header, sentence):
    uri = write(tmp_path, f"{header}\na.png,1,2\n")
    for ask in (manifest.read_carried_columns, lambda uri: list(manifest.read_lines(uri))):
        with pytest.raises(DataError, match=sentence):
            ask(uri)


@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
def test_what_is_no_manifest_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="cannot be read"):
        list(manifest.read_lines(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_the_byte_order_mark_tells_the_encoding(tmp_path, name, encoding):
    text = ("path\n" if name.endswith("csv") else "") + "Oberarm ä.png\r\n\nb.png\n"
    uri = write(tmp_path, text, name, encoding)
    assert [source.name for source in sources.find(uri)] == ["Oberarm ä.png", "b.png"]


@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
def test_odd_paths_are_resolved_as_in_preparation(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "real\\name.png").touch()
    paths = ["./a.png", "x/../b.png", " c.png ", "d/", "sub\\e.png", "real\\name.png", "~/f.png"]
    text = "path\n" * name.endswith("csv") + "\n".join(["", *paths, "  ", ""])
    found = [source.uri for source in sources.find(write(tmp_path, text, name))]
    assert found == [
        *(f"{tmp_path}/{n}" for n in ("a.png", "b.png", "c.png", "d", "sub/e.png")),
        f"{tmp_path}/real\\name.png",
        "/home/me/f.png",
    ]


@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("a\0b.png", "line 3: the path 'a.x00b.png' contains a NUL byte"),
        ("C:\\data\\a.png", "line 3: .* is a path of Windows"),
        ("\\\\server\\share\\a.png", "line 3: .* is a path of Windows"),
    ],
)
def test_paths_that_no_file_can_have_are_refused_with_their_line(tmp_path, name, path, sentence):
    uri = write(tmp_path, f"path\ngood.png\n{path}\n", name)
    with pytest.raises(DataError, match=sentence):
        list(sources.find(uri))


def test_other_inputs_carry_nothing(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    assert manifest.read_carried_columns(str(tmp_path / "folder.csv")) == []
    assert manifest.read_carried_columns(write(tmp_path, "a.png\n", "list.txt")) == []
    assert manifest.read_carried_columns(str(tmp_path / "*.png")) == []


def test_names_that_are_no_unicode_are_kept(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"path,ward\n\xff.png,\xe4\n")
    (line,) = manifest.read_lines(str(tmp_path / "list.csv"))
    assert line.path == "\udcff.png" and line.carried == (("ward", "\\udce4"),)


@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
def test_a_manifest_is_read_as_far_as_it_is_asked_for(tmp_path, monkeypatch, name):
    """Its first lines come while the rest has not even been written."""
    import io

    class Endless(io.RawIOBase):
        given = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            text = (b"path\n" if not self.given and name.endswith("csv") else b"a.png\n") * 100
            buffer[: len(text)] = text
            self.given += 1
            return len(text)

    endless = Endless()
    monkeypatch.setattr(
        manifest.filesystem,
        "open_text",
        lambda _: io.TextIOWrapper(io.BufferedReader(endless), "utf-8", newline=""),
    )
    lines = manifest.read_lines(str(tmp_path / name))
    assert [next(lines).path for _ in range(2)][1] in ("a.png", "path")
    assert endless.given < 50
