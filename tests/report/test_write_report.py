"""The report: complete, self-contained, and safe whatever names hold."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from skte import (
    CCFV,
    CrossCaseProbe,
    LogME,
    ModelBankSelector,
    SegmentationFeatureExtractor,
)
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.report import SeenTable, write_report

pytest.importorskip("matplotlib")

EVIL = "<script>alert(1)</script>"
QUOTE = "\"><img src=x onerror='alert(2)'>$x$"


class Page(HTMLParser):
    """Tags, visible text and ids of a page; every tag must be closed."""

    VOID = frozenset({"img", "input", "meta"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def fitted():
    names = (EVIL, QUOTE, "broken")
    bank = {name: small_unet(widths=(4, 8)) for name in names}
    bank["broken"] = small_unet(in_channels=2, widths=(4, 8))
    cases = make_phantoms(3, size=(16, 16, 16), n_classes=3)
    cases[1]["case_id"] = EVIL
    selector = ModelBankSelector(
        {"ccfv": CCFV(), "logme": LogME()},
        extractor=SegmentationFeatureExtractor(n_class_samples=60, n_case_samples=60),
        confidence_level=0.9,
        error_score=np.nan,
    )
    with pytest.warns(match="broken"):
        return selector.fit(bank, cases)


@pytest.fixture(scope="module")
def text(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert write_report(fitted, path) == path
    return path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_names_are_text_and_never_markup(text):
    page = Page(text)
    assert len(page.all("script")) == 1
    assert all(not key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    for name in (EVIL, QUOTE):
        assert name in page.texts
    assert EVIL not in text


def test_nothing_is_loaded_and_one_script_may_run(text):
    page = Page(text)
    outside = re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"|url\(|@import|https?://", text)
    assert outside == []
    policy = next(m["content"] for m in page.all("meta") if "content" in m and "http-equiv" in m)
    script = re.search(r"<script>(.*)</script>", text, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_every_section_is_there_and_linked(text):
    page = Page(text)
    sections = [s["id"] for s in page.all("section")]
    assert sections == [
        "ranking", "reading", "voxels", "layers", "cases", "warnings", "seen", "dataset", "cost",
        "provenance",
    ]  # fmt: skip
    links = [a["href"][1:] for a in page.all("a")]
    assert sorted(set(links)) == sorted(sections)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {s["aria-labelledby"] for s in page.all("section")} <= set(ids)
    assert not any("Cannot be shown" in t for t in page.texts)


def test_landmarks_language_and_texts_for_pictures(text):
    page = Page(text)
    assert page.all("html")[0]["lang"] == "en"
    for tag in ("header", "nav", "main", "footer", "h1"):
        assert len(page.all(tag)) == 1
    assert len(page.all("img")) == 8  # ranking twice, three cases, layers, distances, embedding
    assert all(image["alt"] for image in page.all("img"))
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))


def test_numbers_are_those_of_the_selector(fitted, text):
    page = Page(text)
    shown = set(page.texts)
    for key in ("ccfv", "logme"):
        for score in fitted.results_[f"score_{key}"]:
            assert np.isnan(score) or any(s.startswith(f"{score:.4g} (") for s in shown)
    assert any(fitted.confidence_.verdict() in s for s in shown)
    assert set(fitted.answer_.above) <= shown
    assert any("takes 1 channels" in t or "channels" in t for t in page.texts)
    assert str(fitted.random_state_) in shown


def test_what_each_model_saw_is_named(fitted, text, tmp_path):
    seen = SeenTable.from_selector(fitted)
    assert [row[0] for row in seen.rows] == list(fitted.ranking_)
    shown = set(Page(text).texts)
    for row in seen.rows:
        assert set(filter(None, row)) <= shown
    assert {fitted.date_, "in memory"} <= shown
    assert seen.facts["cases"].startswith(f"{len(fitted.dataset_)}: ")
    for form in (repr(seen), seen._repr_html_()):
        assert "fitted to each volume" in form
        assert "scikit-learn" in form


def test_no_path_of_this_machine_is_told(text, tmp_path):
    assert str(tmp_path.parent.parent) not in text


@pytest.mark.slow
def test_the_same_ranking_gives_the_same_page(fitted, text, tmp_path):
    assert write_report(fitted, tmp_path / "again.html").read_text(encoding="utf-8") == text


@pytest.mark.slow
def test_a_score_of_all_layers_together_is_no_layer_s(tmp_path):
    bank = {"a": small_unet(widths=(2, 4)), "b": small_unet(widths=(2, 4))}
    cases = make_phantoms(2, size=(12, 12, 12))
    selector = ModelBankSelector(CrossCaseProbe(), reference=False).fit(bank, cases)
    page = write_report(selector, tmp_path / "page.html").read_text("utf-8")
    layers = page.partition('<section id="layers"')[2].partition("</section>")[0]
    assert "of all layers of a model together" in layers
    for name in selector.results_["layers"][0]:
        assert f"<code>{name}</code>" in layers


def test_the_table_is_that_of_the_ranking(fitted, text):
    header = [*fitted.ranking_.header, "status"]
    table = text[text.index("<thead>") : text.index("</thead>")]
    assert re.findall(r"<th [^>]*>(.*?)</th>", table) == header
    body = text[text.index("<tbody>") : text.index("</tbody>")]
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in body.split("<tr>")[1:]]
    assert [row[0] for row in cells] == [str(row[0]) for row in fitted.ranking_.rows()]
    assert [row[2] for row in cells] == [row[2] for row in fitted.ranking_.rows()]
    assert cells[-1][-1] == "failed"


@pytest.mark.slow
def test_what_cannot_be_explained_costs_its_section_alone(fitted, tmp_path, monkeypatch):
    def fail(self, *args):
        raise ValueError("gone")

    monkeypatch.setattr(SegmentationFeatureExtractor, "extract", fail)
    page = Page(write_report(fitted, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "Cannot be shown: gone" in page.texts
    assert "provenance" in [s["id"] for s in page.all("section")]


def test_wrong_input_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(ValueError, match=r"is an \.html file, not '\.pdf'"):
        write_report({}, tmp_path / "r.pdf")
    with pytest.raises(TypeError, match="fitted ModelBankSelector, got dict"):
        write_report({"name": ["a"]}, tmp_path / "r.html")
    with pytest.raises(ValueError, match="not fitted"):
        write_report(ModelBankSelector(CCFV()), tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_page(fitted, tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")
    monkeypatch.setattr("pathlib.Path.replace", lambda *a: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_report(fitted, path, n_cases=0, explain=False)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
