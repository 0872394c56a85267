"""The run report and the model card: what they say, and that a browser shows the report without an error or a request."""

import html.parser
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.support import browser
from trainer import metrics, model_card, report
from trainer.evaluation import calibration
from trainer.evaluation.cases import Cases

FIGURES = {"curve-loss", "curve-accuracy", "curve-auroc", "roc", "pr", "reliability", "scores"}


def scored(patients: int, seed: int) -> Cases:
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), generator.integers(1, 4, size=patients))
    label = generator.integers(2, size=patients)[patient]
    names = [f"patient{p:05d}" for p in patient]
    paths = [f"{name}/study1/image{k}.png" for k, name in enumerate(names)]
    logits = 2 * (generator.normal(size=len(patient)) + 2.1 * (label - 0.5))
    return Cases(np.full(len(patient), 0.5), logits, label, ["study1"] * len(patient), names, paths)


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64 * 48, dtype=np.uint8).reshape(64, 48)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def run() -> report.RunReport:
    validation, test = scored(40, 0), scored(60, 1)
    point = calibration.fit(validation, abstain=0.1)
    cases = {"validation": calibration.apply(validation, point.temperature), "test": calibration.apply(test, point.temperature)}
    counts = {"images": 100, "studies": 60, "patients": 50, "positives": 47, "rejected": 1}
    rising = np.linspace(0.5, 0.9, 8)
    return report.RunReport(
        title="first <run> & more",
        dataset={
            "simulated": True,
            "image_size": 320,
            "fingerprint": "0123456789abcdef0123",
            "splits": {"train": counts, "validation": counts, "test": counts},
            "rejections": {"truncated": 6},
            "warnings": ["two files are the same image"],
        },
        operating_point=point,
        cases=cases,
        metrics={
            split: metrics.evaluate(cases[split], point.threshold, point.uncertain_band, resamples=100)
            for split in ("test", "validation")
        },
        history=[
            {
                "epoch": k + 1,
                "loss": 1 - v,
                "accuracy": v,
                "val_loss": 1.1 - v,
                "val_accuracy": v - 0.1,
                "val_auroc": v,
                "criterion": v,
            }
            for k, v in enumerate(rising)
        ],
        config={"backbone": "densenet121", "augmentation": {"rotation": 30.0}},
        environment={"tensorflow": "2.21.0"},
        slices=metrics.slices(cases["test"], {"source_mode": np.resize(["grey", "rgb"], len(test))}, point.threshold, resamples=20),
        examples=[("image7.png: called positive at 0.98", picture())],
    )


class Page(html.parser.HTMLParser):
    """Tags with their attributes, the ids, and the text of the page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data + " "


@pytest.fixture(scope="module")
def text(run) -> str:
    return report.render(run)


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_the_page_is_whole_and_asks_for_nothing(text, page):
    assert "<script" not in text
    links = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "xlink:href")
    ]
    assert links
    assert all(value.startswith(("data:", "#")) for value in links)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_ids_are_unique_and_every_reference_has_its_target(text, page):
    assert len(set(page.ids)) == len(page.ids)
    targets = re.findall(r"url\(#([^)]+)\)", text) + [
        attributes["xlink:href"][1:] for _, attributes in page.tags if attributes.get("xlink:href", "").startswith("#")
    ]
    assert targets
    assert set(targets) <= set(page.ids)


def test_every_figure_is_there_with_a_text_alternative(page):
    figures = {attributes["id"]: attributes for tag, attributes in page.tags if tag == "figure" and "id" in attributes}
    assert set(figures) == {f"figure-{name}" for name in FIGURES}
    assert all(len(attributes["aria-label"]) > 20 for attributes in figures.values())
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")


def test_the_numbers_are_those_of_the_run(run, page):
    for level in ("image", "study"):
        for name in metrics.METRICS:
            assert metrics.format_interval(run.metrics["test"][level][name]) in page.text, name
    cells = run.metrics["test"]["confusion"]["image"]
    table = page.text[page.text.index("Confusion per image") : page.text.index("Confusion per study")]
    assert [int(number) for number in re.findall(r"\b\d+\b", table)] == [cells[name] for name in ("tp", "fn", "fp", "tn")]
    assert f"{run.operating_point.threshold:.3f}" in page.text
    for expected in ("augmentation.rotation", "30.0", "truncated 6", "two files are the same image", "source_mode", "2.21.0"):
        assert expected in page.text


def test_text_is_escaped_and_the_warnings_stand_at_the_top(text, page):
    assert "first &lt;run&gt; &amp; more</h1>" in text
    assert "not a medical device" in page.text
    assert {"simulated", "purpose"} <= set(page.ids)


def test_real_data_carry_no_simulated_banner(run):
    real = Page(report.render(replace(run, dataset={**run.dataset, "simulated": False})))
    assert "simulated" not in real.ids
    assert "purpose" in real.ids


def test_without_test_split_validation_is_shown(run):
    text = report.render(
        replace(
            run, cases={"validation": run.cases["validation"]}, metrics={"test": {}, "validation": run.metrics["validation"]}
        )
    )
    assert "Confusion per image, validation split" in text
    assert "test, per image" not in text


def test_a_run_without_anything_to_evaluate_still_reports(run):
    bare = Page(
        report.render(replace(run, cases={}, metrics={"test": {}, "validation": {}}, slices={}, examples=(), history=[]))
    )
    assert "nothing to evaluate" in bare.text
    assert "densenet121" in bare.text


def test_one_class_and_gaps_in_the_history(run):
    positives = run.cases["test"].take(run.cases["test"].label == 1)
    measured = metrics.evaluate(positives, 0.5, resamples=20)
    history = [{"epoch": 1, "loss": 0.5, "val_loss": float("nan"), "val_auroc": float("nan")}]
    text = report.render(replace(run, cases={"test": positives}, metrics={"test": measured}, history=history))
    assert "undefined" in text


def test_write_leaves_one_file_the_same_each_time(run, text, tmp_path):
    path = report.write(str(tmp_path), run)
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    assert path == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text


def test_curves_png(run):
    image = Image.open(io.BytesIO(report.curves_png(run.history)))
    assert image.format == "PNG"
    assert image.width > 2 * image.height
    shown = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((0xD9, 0x73, 0x0D), (0x2F, 0x86, 0xC8)):
        assert (np.abs(shown.astype(int) - colour).max(axis=1) < 8).sum() > 100


@pytest.mark.parametrize("width", [1280, 500])
def test_chromium_shows_it_without_an_error(text, tmp_path, width):
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    with browser.chromium(tmp_path / "profile") as shown:
        shown.open(tmp_path / "report.html", width, 2400)
        laid_out = """Object.fromEntries([...document.querySelectorAll("figure[id]")].map(figure => {
            const box = figure.querySelector("svg").getBoundingClientRect();
            return [figure.id, Math.min(box.width, box.height)];
        }))"""
        sizes = shown.ask(laid_out)
        assert set(sizes) == {f"figure-{name}" for name in FIGURES}
        assert min(sizes.values()) > 150, sizes
        assert shown.ask("[...document.images].map(image => image.naturalWidth > 0)") == [True]
        assert shown.ask("document.documentElement.scrollWidth - innerWidth") <= 0
        asked = [address for address in shown.requests if not address.startswith("data:")]
        assert asked == [(tmp_path / "report.html").as_uri()]
        assert shown.errors == []


def card(run, **changes) -> str:
    fields = {
        "image_size": 320,
        "threshold": run.operating_point.threshold,
        "temperature": run.operating_point.temperature,
        "uncertain_band": run.operating_point.uncertain_band,
        "cam": {"layer": "features", "height": 10, "width": 10, "scale": 1.0},
        "architecture": {"backbone": "densenet121", "threshold_rule": "kappa", "members": 1, "mirrored": False},
        "dataset": run.dataset,
        "metrics": run.metrics,
        "reference": {},
        "preprocessing": {},
        "versions": {"tensorflow": "2.21.0"},
        "created": "2026-01-01T00:00:00+00:00",
    }
    return model_card.render({**fields, **changes})


def test_model_card_states_metrics_operating_point_and_limits(run):
    text = card(run)
    for name in metrics.METRICS:
        row = f"| {name} | " + " | ".join(
            metrics.format_interval(run.metrics[split][level][name])
            for split in ("test", "validation")
            for level in ("image", "study")
        )
        assert row + " |" in text
    assert f"Positive from {run.operating_point.threshold:.4f} (rule `kappa`)" in text
    for limit in ("not a medical device", "abnormality, not fracture", "Hardware is a known shortcut", "simulated radiographs"):
        assert limit in text
    assert "uint8 [B, 320, 320, 1]" in text
    assert "\n\n\n" not in text


def test_model_card_tables_are_well_formed(run):
    for block in re.findall(r"(?:^\|.*\n)+", card(run), flags=re.MULTILINE):
        columns = {line.count("|") for line in block.splitlines()}
        assert len(columns) == 1, block


def test_model_card_of_real_data_without_band_or_metrics(run):
    text = card(run, dataset={"simulated": False}, metrics={"test": {}}, uncertain_band=None)
    assert "simulated" not in text
    assert "no abstain band" in text
    assert "there was no split to evaluate on" in text
