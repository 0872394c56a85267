"""The run report and the model card: their content, and the report in a browser."""

import html.parser
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from tests.support import browser, run_report
from trainer import artifact
from trainer.evaluation import calibration, figures, metric_tables, metrics
from trainer.evaluation.cases import count_confusion
from trainer.publishing import model_card, report

FIGURES = {"curve-loss", "curve-accuracy", "curve-auroc", "roc", "pr", "reliability", "scores"}


@pytest.fixture(scope="module")
def run() -> report.RunReport:
    return run_report.make()


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
    links = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href")
    ]
    assert links
    beside = {value for value in links if not value.startswith(("data:", "#"))}
    assert beside == {"artifact/MODEL_CARD.md"}
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_ids_are_unique_and_every_reference_has_its_target(text, page):
    assert len(set(page.ids)) == len(page.ids)
    targets = re.findall(r"url\(#([^)]+)\)", text) + [
        attributes["xlink:href"][1:]
        for _, attributes in page.tags
        if attributes.get("xlink:href", "").startswith("#")
    ]
    assert targets
    assert set(targets) <= set(page.ids)


def test_every_figure_is_there_with_a_text_alternative(page):
    shown = {
        attributes["id"]: attributes
        for tag, attributes in page.tags
        if tag == "figure" and attributes.get("id", "").startswith("figure-")
    }
    assert set(shown) == {f"figure-{name}" for name in FIGURES}
    said = [
        attributes["aria-label"] for _, attributes in page.tags if attributes.get("role") == "img"
    ]
    assert len(said) == len(FIGURES) and all(len(text) > 20 for text in said)
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")


def test_the_numbers_are_those_of_the_run(run, page):
    for level in ("image", "study"):
        for name in metrics.METRICS:
            assert metric_tables.format_interval(run.metrics["test"][level][name]) in page.text, (
                name
            )
    cells = run.metrics["test"]["confusion"]["image"]
    table = page.text[
        page.text.index("Confusion per image") : page.text.index("Confusion per study")
    ]
    row = {
        name: sum(cells[n] for n in names)
        for names in (("tp", "fn"), ("fp", "tn"))
        for name in names
    }
    for name in ("tp", "fn", "fp", "tn"):
        assert re.search(rf"\b{cells[name]}\b\s+{100 * cells[name] / row[name]:.1f} %", table), name
    assert f"{run.operating_point.threshold:.3f}" in page.text
    assert "uncertain ones counted by their side of the threshold" in table
    for expected in (
        "Data: mura, XR_HUMERUS, 320 px",
        metric_tables.NO_INTERVAL,
        "augmentation.rotation",
        "30.0",
        "truncated 6",
        "two files are the same image",
        "source_mode",
        "2.21.0",
    ):
        assert expected in page.text


def test_text_is_escaped_and_the_warnings_stand_at_the_top(text, page):
    assert "first &lt;run&gt; &amp; more</h1>" in text
    assert "not a medical device" in page.text
    assert {"simulated", "purpose"} <= set(page.ids)


def test_real_data_carry_no_simulated_banner(run):
    real = Page(report.render(replace(run, dataset=replace(run.dataset, simulated=False))))
    assert "simulated" not in real.ids
    assert "purpose" in real.ids


def test_without_test_split_validation_is_shown(run):
    text = report.render(
        replace(
            run,
            cases={"validation": run.cases["validation"]},
            metrics={"test": {}, "validation": run.metrics["validation"]},
        )
    )
    assert (
        "Calls and scores, validation split" in text
        and "Most confident errors, validation split" in text
    )
    assert text.count('scope="colgroup"') == 1
    assert "There is no test split" in text


def test_a_run_without_anything_to_evaluate_still_reports(run):
    bare = Page(
        report.render(
            replace(
                run,
                cases={},
                metrics={"test": {}, "validation": {}},
                slices={},
                examples=(),
                history=[],
            )
        )
    )
    assert "nothing to evaluate" in bare.text
    assert "densenet121" in bare.text
    assert "Calls and scores" not in bare.text and "figure" not in {tag for tag, _ in bare.tags}


def test_one_class_and_gaps_in_the_history(run):
    positives = run.cases["test"].take(run.cases["test"].label == 1)
    measured = metrics.evaluate(positives, 0.5, resamples=20)
    history = [{"epoch": 1, "loss": 0.5, "val_loss": float("nan"), "val_auroc": float("nan")}]
    point = calibration.fit(positives)
    one_class = replace(
        run,
        cases={"validation": positives},
        metrics={"validation": measured},
        history=history,
        operating_point=point,
    )
    text = report.render(one_class)
    assert "undefined" in text
    assert (
        "not fitted: too few images were held out, or of one class)" in text
        and "optimistic" not in text
    )
    # No figure with nothing in it.
    assert set(re.findall(r'id="figure-([\w-]+)"', text)) == {"curve-loss", "reliability", "scores"}
    assert "There are no ROC and precision-recall curves" in text


def test_the_curves_as_png(run):
    image = Image.open(io.BytesIO(figures.render_png(figures.draw_curves(run.history))))
    assert image.format == "PNG"
    assert image.width > 2 * image.height
    shown = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((0xD9, 0x73, 0x0D), (0x2F, 0x86, 0xC8)):
        assert (np.abs(shown.astype(int) - colour).max(axis=1) < 8).sum() > 100


@pytest.fixture
def shown(chromium, text, tmp_path) -> browser.Page:
    """Return the browser, with the report's file in `file`."""
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    chromium.reset()
    chromium.file = tmp_path / "report.html"
    return chromium


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", browser.SIZES)
def test_chromium_shows_it_without_errors_or_barriers(shown, size, scheme):
    shown.emulate(scheme)
    shown.open(shown.file, *browser.SIZES[size])
    laid_out = """Object.fromEntries(
        [...document.querySelectorAll("figure[id^=figure-]")].map(figure => {
        const box = figure.querySelector("svg").getBoundingClientRect();
        return [figure.id, Math.min(box.width, box.height)];
    }))"""
    sizes = shown.ask(laid_out)
    assert set(sizes) == {f"figure-{name}" for name in FIGURES}
    assert min(sizes.values()) > 150, sizes
    assert shown.ask("[...document.images].map(image => image.naturalWidth > 0)") == [True]
    assert shown.ask("document.documentElement.scrollWidth - innerWidth") <= 0
    assert shown.ask("document.querySelector('.examples img').clientWidth") >= 300
    shown.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
    cut = "e => e.checkVisibility() && e.scrollWidth > e.clientWidth"
    cells = "'.metrics :is(th, td), .cases, .cases :is(th, td), #metrics .scroll'"
    assert not shown.ask(f"[...document.querySelectorAll({cells})].filter({cut}).length")
    assert not shown.list_barriers()
    asked = [address for address in shown.requests if not address.startswith("data:")]
    assert set(asked) <= {shown.file.as_uri(), "about:blank"}
    assert shown.errors == []


def test_the_threshold_moves_by_slider_and_on_the_curve(shown, run):
    def cells() -> dict[str, int]:
        names = ("tp", "fp", "fn", "tn")
        return {n: int(shown.ask(f"document.querySelector('#{n} b').textContent")) for n in names}

    cases, plot = run.cases["test"], "#figure-roc .plot"
    shown.open(shown.file, 1400, 900)
    assert cells() == count_confusion(cases, run.operating_point.threshold)
    shown.ask("document.querySelector('#threshold').focus()")
    shown.press("Home")
    assert cells() == count_confusion(cases, 0.0)
    left, top, right, bottom = map(
        float, shown.ask(f"document.querySelector('{plot}').dataset.axes").split()
    )
    shown.find(plot)
    x, y, width, height = shown.ask(
        f"(b => [b.x, b.y, b.width, b.height])"
        f"(document.querySelector('{plot}').getBoundingClientRect())"
    )
    specificity, sensitivity, thresholds = roc_curve(
        cases.label, cases.probability, drop_intermediate=False
    )
    middle = len(thresholds) // 2
    place = (
        x + width * (left + (right - left) * (specificity[middle] + 0.02) / 1.04),
        y + height * (bottom - (bottom - top) * (sensitivity[middle] + 0.02) / 1.04),
    )
    shown.mouse("mouseMoved", *place)
    said = f"threshold {thresholds[middle]:.3f}: 1 - specificity {specificity[middle]:.3f}"
    assert said in shown.ask(f"document.querySelector('{plot} .tip').textContent")
    shown.mouse("mousePressed", *place, button="left", buttons=1, clickCount=1)
    shown.mouse("mouseReleased", *place, button="left", clickCount=1)
    assert cells() == count_confusion(cases, thresholds[middle])
    nearest = cases.path[np.argmin(np.abs(cases.probability - thresholds[middle]))]
    assert shown.ask("document.querySelector('#listed td').textContent") == nearest
    shown.click("#fp")
    rows = shown.ask("[...document.querySelectorAll('#listed tr')].map(row => row.innerText)")
    assert len(rows) == min(50, cells()["fp"])
    assert all(row.split("\t")[2:] == ["positive", "negative"] for row in rows)
    low, high = binomtest(cells()["tp"], cells()["tp"] + cells()["fn"]).proportion_ci(
        method="wilson"
    )
    assert f"({low:.3f} to {high:.3f}), specificity" in shown.ask(
        "document.querySelector('#moved').textContent"
    )
    shown.click("#fitted")
    assert cells() == count_confusion(cases, run.operating_point.threshold)
    assert not shown.errors


def test_the_curves_state_their_areas_and_what_chance_gives(text, run):
    for level in ("image", "study"):
        for name, title in (("auroc", "AUROC"), ("auprc", "AUPRC")):
            stated = metric_tables.format_interval(run.metrics["test"][level][name])
            assert f"per {level}, {title} {stated}" in text
    assert ">chance<" in text
    assert f">prevalence per image {run.cases['test'].label.mean():.2f}<" in text


def test_a_threshold_next_to_1_never_reads_as_1(shown, run):
    point = replace(run.operating_point, threshold=0.99985)
    text = report.render(replace(run, operating_point=point))
    assert "Called positive from probability &gt; 0.999 (rule" in text
    assert text.count(">threshold &gt; 0.99<") == 3, "the legends of the figures"
    shown.file.write_text(text, encoding="utf-8")
    shown.open(shown.file)
    assert shown.ask("document.querySelector('#at').textContent") == "> 0.999"


def test_checks_that_were_not_measured_are_told(page):
    assert re.search(r"localisation\s+not measured\s+there are no masks", page.text)
    assert re.search(r"flip\s+passed", page.text)


def test_a_split_that_tells_nothing_is_said_to(run):
    def measure(auroc: tuple) -> str:
        value = dict(zip(("value", "low", "high"), auroc, strict=True))
        test = run.metrics["test"]
        image = {**test["image"], "auroc": value}
        changed = {**run.metrics, "test": {**test, "image": image}}
        return Page(report.render(replace(run, metrics=changed))).text

    assert "any AUROC between 0.60 and 0.90 fits it" in measure((0.8, 0.6, 0.9))
    assert "chance (0.5) among them" in measure((0.6, 0.45, 0.75))
    assert "holds one class only" in measure((None, None, None))
    assert "too small" not in measure((0.9, 0.85, 0.95))
    none = {"value": 0.6, "low": 0.4, "high": 0.8}
    test = {**run.metrics["test"], "image": {**run.metrics["test"]["image"], "auroc": none}}
    sentence = "Note: the test split is too small to tell how good this network is"
    assert sentence in card(run, metrics={**run.metrics, "test": test})


def test_slices_are_large_enough_and_none_stands_twice(run):
    cases = run.cases["test"]
    mode = np.resize(["grey", "rgb"], len(cases))
    few = np.where(np.arange(len(cases)) < 9, "rare", "often")
    columns = {"mode": mode, "colour": np.char.upper(mode), "rare": few}
    measured = metrics.evaluate_slices(cases, columns, 0.5, resamples=20)
    names = [name for name, _ in report.select_slices(measured)]
    assert names == ["mode: grey; colour: GREY", "mode: rgb; colour: RGB", "rare: often"]


def card_fields(run, **changes) -> dict:
    fields = {
        "image_size": 320,
        "threshold": run.operating_point.threshold,
        "temperature": run.operating_point.scaling.temperature,
        "intercept": run.operating_point.scaling.intercept,
        "calibration": run.operating_point.records,
        "uncertain_band": run.operating_point.uncertain_band,
        "cam": {"layer": "features", "height": 10, "width": 10, "scale": 1.0},
        "architecture": {
            "backbone": "densenet121",
            "threshold_rule": "kappa",
            "members": 1,
            "flips": "none",
        },
        "dataset": run.dataset.to_dict(),
        "metrics": run.metrics,
        "reference": {},
        "preprocessing": {},
        "versions": {"tensorflow": "2.21.0"},
        "created": "2026-01-01T00:00:00+00:00",
    }
    return {**fields, **changes}


def card(run, **changes) -> str:
    return model_card.render(card_fields(run, **changes))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"simulated": True, "layout": "mura"}, "simulated radiographs"),
        ({"simulated": False, "layout": "mura"}, "MURA"),
        ({"simulated": False, "layout": "manifest"}, "radiographs"),
    ],
)
def test_the_hub_lists_figures_under_the_name_of_the_data(run, tmp_path, changes, name):
    model_card.write(tmp_path, card_fields(run, dataset=run.dataset.to_dict() | changes), {})
    head = (tmp_path / artifact.HUB_CARD).read_text().split("---")[1]
    (listed,) = yaml.safe_load(head)["model-index"]
    assert {result["dataset"]["name"] for result in listed["results"]} == {name}


def test_the_card_of_an_artifact_with_the_required_fields_only(run):
    least = {"architecture": {"backbone": "tiny"}, "dataset": {"fingerprint": "0"}, "metrics": {}}
    text = card(run, **least)
    assert text.startswith("# Model card: tiny")
    assert "Engine: no engine was measured; humerus-verify measures them." in text


def test_the_card_says_which_engine_scores_and_which_was_refused(run):
    measured = {"device": "CPU", "within_tolerance": True}
    engines = {
        "openvino/float32": measured | {"images_per_second": 10.0},
        "openvino/int8": measured
        | {"images_per_second": 25.0, "within_tolerance": False, "verdict": "labels change"},
    }
    assert (
        "Engine: openvino/float32 is used (10 images/s when it was measured); openvino/int8 would"
        " be 2.5 times as fast and was refused: labels change."
    ) in card(run, engines=engines)


def test_model_card_states_metrics_operating_point_and_limits(run):
    text = card(run)
    for name in metrics.METRICS:
        row = f"| {name} | " + " | ".join(
            metric_tables.format_interval(run.metrics[split][level][name])
            for split in ("test", "validation")
            for level in ("image", "study")
        )
        assert row + " |" in text
    assert f"Positive from {run.operating_point.threshold:.4f} (rule `kappa`)" in text
    for limit in (
        "not a medical device",
        "what the labels of the data set call positive; it is not a diagnosis",
        "Hardware is a known shortcut",
        "simulated radiographs",
    ):
        assert limit in text
    assert "uint8 [B, 320, 320, 1]" in text
    assert "\n\n\n" not in text


def test_model_card_lists_the_splits_as_the_report_does(run):
    splits = dict(sorted(run.dataset.splits.items()))  # as read from model.json
    text = card(run, dataset=run.dataset.to_dict() | {"splits": splits})
    assert re.findall(r"^\| (\w+) \| 100 ", text, re.MULTILINE) == ["train", "validation", "test"]


def test_model_card_says_what_it_was_made_of_and_from(run):
    fields = {"backbone": "xception", "threshold_rule": "kappa", "members": 1, "flips": "none"}
    dataset = {**run.dataset.to_dict(), "body_parts": ["XR_ELBOW", "XR_HUMERUS"]}
    origin = {"weights": "xception_notop.weights.h5", "recipe": "humerus", "seed": 3}
    text = card(run, dataset=dataset, architecture=fields | origin)
    assert "Classifies radiographs of the elbow, humerus as `positive`" in text
    trained = "Trained from the weights `xception_notop.weights.h5`, by the recipe `humerus`"
    assert f"{trained}, with seed 3." in text
    text = card(
        run,
        dataset={**run.dataset.to_dict(), "body_parts": ["all"]},
        architecture=fields | origin | {"weights": "none", "recipe": ""},
    )
    assert (
        "Classifies radiographs as `positive`" in text
        and "Trained from random weights, with seed 3." in text
    )


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({}, "No flipped copies of an image are scored."),
        (
            {"flips": "none", "flip_gains": {"horizontal": 0.002}},
            "Change in AUROC of held-out images: with the mirror image +0.002.",
        ),
        (
            {"flips": "both", "flip_gains": {"horizontal": 0.009, "both": 0.018}},
            "takes four times as long. Change in AUROC of held-out images: with the mirror image"
            " +0.009, with all flipped copies +0.018.",
        ),
        ({"flips": "horizontal", "flip_gains": {}}, "averaged, which takes twice as long."),
        ({"mirrored": True, "mirror_gain": 0.009}, "averaged, which takes twice as long."),
    ],
    ids=["not said", "none", "both", "not measured", "earlier version"],
)
def test_model_card_says_which_flipped_copies_are_scored(run, described, said):
    assert said in card(run, architecture={"backbone": "xception", **described})


def test_model_card_says_which_figures_flatter_and_what_was_not_fitted(run):
    fields = {"backbone": "xception", "threshold_rule": "kappa", "flips": "none"}
    assert "chosen on the validation split, so its figures are optimistic" in card(run)
    folds = {"test": {}, "out_of_fold": run.metrics["test"]}
    single, ensemble = (
        card(run, metrics=folds, architecture={**fields, "members": n}) for n in (1, 3)
    )
    assert "these figures are optimistic for it" in single and "optimistic" not in ensemble
    assert (
        "chosen on the validation split" not in single
        and "(rule `kappa`), fitted out of fold" in single
    )
    unfitted = card(run, architecture={**fields, "members": 1, "threshold_fitted": False})
    assert "(rule `kappa`), not fitted: too few images were held out, or of one class." in unfitted
    assert metric_tables.NO_INTERVAL in unfitted


def test_model_card_tables_are_well_formed(run):
    for block in re.findall(r"(?:^\|.*\n)+", card(run), flags=re.MULTILINE):
        columns = {line.count("|") for line in block.splitlines()}
        assert len(columns) == 1, block


def test_model_card_of_real_data_without_band_or_metrics(run):
    text = card(run, dataset={"simulated": False}, metrics={"test": {}}, uncertain_band=None)
    assert "simulated" not in text
    assert "no uncertain band" in text
    assert "There was no split to evaluate on" in text
