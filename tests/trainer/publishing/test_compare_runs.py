"""Runs side by side: the command, and its page in a browser."""

import html
import json
import re
import shutil
import urllib.parse

import pytest
from sklearn.metrics import roc_auc_score

from tests.support import browser, run_report
from trainer import main
from trainer.evaluation import metric_tables


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in their learning rate, and their page."""
    root = tmp_path_factory.mktemp("runs")
    first = run_report.write_run(root / "first", learning_rate="0.001", seed="1")
    second = run_report.write_run(root / "second", learning_rate="0.01", seed="1")
    page = root / "pages" / "compare.html"
    page.parent.mkdir()
    assert main.report(["humerus-report", str(first), str(second), f"--output={page}"]) == 0
    return first, second, page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_sets_metrics_and_differing_settings_side_by_side(runs, page, scheme):
    page.emulate(scheme)
    for size in browser.SIZES.values():
        page.open(runs[2], *size)
        assert page.ask("document.documentElement.scrollWidth - innerWidth") <= 0
        assert not page.list_barriers()
    table = page.ask("[...document.querySelectorAll('#settings tr')].map(row => row.innerText)")
    assert [row.split("\t") for row in table] == [
        ["", "first", "second"],
        ["learning_rate", "0.001", "0.01"],
    ]
    measured = json.loads((runs[0] / "metrics.json").read_text())["test"]["image"]
    row = "[...document.querySelectorAll('#metrics-image tr')].map(row => row.innerText)"
    stated = metric_tables.format_interval(measured["auroc"])
    assert f"AUROC\t{stated}\t{stated}" in page.ask(row)
    assert "xception" in page.ask("document.querySelector('#facts').innerText")
    assert page.ask("document.querySelector('#several')") is None
    links = page.ask("[...document.querySelectorAll('nav a')].map(link => link.href)")
    assert links == [(run / "report.html").as_uri() for run in runs[:2]]
    assert page.errors == [] and all(url.startswith(("file:", "about:")) for url in page.requests)


def test_the_curves_are_those_of_the_reports(runs):
    cases = run_report.make().cases["test"]
    area = roc_auc_score(cases.label, cases.probability)
    assert f"second, AUROC {area:.3f}" in runs[2].read_text()


def test_different_data_is_told_and_the_terminal_has_a_table(runs, tmp_path, capsys):
    other = tmp_path / "first"
    shutil.copytree(runs[0], other)
    (other / "config.json").write_text(json.dumps({"data.fingerprint": "another"}))
    (other / "report.html").unlink()
    page = tmp_path / "compare.html"
    assert main.report(["humerus-report", str(runs[0]), str(other), f"--output={page}"]) == 0
    assert "were trained and measured on different data" in page.read_text()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"{runs[0]} ") and lines[3].startswith(f"{other} ")
    assert "AUROC" in lines[0] and lines[2].endswith("test")
    assert lines[4].startswith("These runs were trained and measured on different data")


def test_names_of_folders_are_text_and_nothing_else(runs, tmp_path, capsys):
    names = ["javascript:alert(1)", "<script>alert(1)", "a$x^$b", "_under", "q?x#y%20", "a\u202eb"]
    for name in names:
        shutil.copytree(runs[0], tmp_path / name)
    folders = [str(tmp_path / name) for name in names]
    assert main.report(["humerus-report", *folders, f"--output={tmp_path}/compare.html"]) == 0
    text = (tmp_path / "compare.html").read_text()
    links = [
        urllib.parse.unquote(html.unescape(link))
        for link in re.findall('href="([^#"]*html)"', text)
    ]
    assert links == [f"{name}/report.html" for name in names]
    assert "javascript:" not in " ".join(re.findall('href="[^"]*"', text))
    assert "<script>alert" not in text and "\u202e" not in text + capsys.readouterr().out
    for name in ("a$x^$b", "_under"):
        assert f"{name}, AUROC" in text


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (None, "holds no finished run (no metrics.json there)"),
        ("{", "are damaged (Expecting"),
        ("[1]", "are damaged ("),
        ('{"test": {"image": {}}}', "are damaged ('counts')"),
        ('{"test": {}}', "no split is measured"),
    ],
)
def test_a_folder_without_a_finished_run_is_refused(tmp_path, capsys, broken, said):
    if broken:
        (tmp_path / "metrics.json").write_text(broken)
    page = tmp_path / "compare.html"
    assert main.report(["humerus-report", str(tmp_path), f"--output={page}"]) == 2
    assert said in capsys.readouterr().err and not page.exists()


def test_mistakes_on_the_command_line_are_told(tmp_path, capsys):
    assert main.report(["humerus-report"]) == 2
    assert "name the folders of one or several finished runs" in capsys.readouterr().err
    assert main.report(["humerus-report", "runs/first", "runs/first/"]) == 2
    assert "runs/first is named twice" in capsys.readouterr().err
    assert main.report(["humerus-report", "runs/first", "runs/second", "--output=there"]) == 2
    assert "--output=there is no page" in capsys.readouterr().err
