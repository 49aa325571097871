"""The report in a real browser: sorting, searching, nothing loaded, narrow windows, contrast."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from skte import CCFV, KNN, CrossCaseProbe, HScore, LogME, ModelBankSelector
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.report import write_report
from tests.browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]

NAMES = [f"Dataset{i:03d}_Some-Organ__nnUNetTrainer__nnUNetPlans__3d_fullres" for i in range(12)]
COLUMN = (
    "[...document.querySelector('table.sortable').tBodies[0].rows]"
    ".filter(r => !r.hidden).map(r => r.cells[{}].textContent.trim())"
)
# Relative luminance and contrast of text as WCAG 2.2 defines them, of what is on the page.
CONTRAST = """(() => {
  const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map(v => c.startsWith('color(') ? v : v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c) && c !== 'transparent') return c; } return 'rgb(255, 255, 255)'; };
  let worst = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 120)];
  }
  return worst; })()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    torch.manual_seed(0)
    bank = {name: small_unet(widths=(2, 4)) for name in NAMES}
    bank[NAMES[0]] = small_unet(widths=(2, 4), in_channels=2)  # fails: the column of the status
    estimators = [CrossCaseProbe(), LogME(), HScore(), KNN(), CCFV(feature_variety=False)]
    named = {type(one).__name__.lower(): one for one in estimators}
    selector = ModelBankSelector(named, error_score=np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        selector.fit(bank, make_phantoms(3, size=(16, 16, 16)))
    assert {"untrained twin", "zero-shot Dice"} <= selector.ranking_.facts.keys()
    selector.ranking_.facts["parameters"] = [31_200_000] * len(NAMES)  # as of an nnU-Net
    selector.ranking_.facts["cases"] = [3] * len(NAMES)  # as of a race
    path = tmp_path_factory.mktemp("page") / "report.html"
    title = f"Ranking for {NAMES[0]}_and_more"
    return write_report(selector, path, title=title, n_cases=0, explain=False)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def column_of(browser: Browser, title: str) -> int:
    titles = browser.run(
        "[...document.querySelector('table.sortable').tHead.rows[0].cells]"
        ".map(c => c.textContent.trim().toLowerCase())"
    )
    return int(titles.index(title))


def test_a_header_sorts_by_mouse_and_by_keyboard(page: Path, browser: Browser) -> None:
    browser.open(page)
    column = column_of(browser, "model")
    before = browser.run(COLUMN.format(column))
    assert sorted(before) != before
    button = f"table.sortable thead th:nth-child({column + 1}) button"
    browser.click(button)
    assert browser.run(COLUMN.format(column)) == sorted(before)
    browser.run(f"document.querySelector('{button}').focus()")
    browser.press("Enter", "\r", 13)
    assert browser.run(COLUMN.format(column)) == sorted(before, reverse=True)
    sorts = browser.run(f"document.querySelector('{button}').parentElement.ariaSort")
    assert sorts == "descending"


def test_every_control_is_reached_by_tab(page: Path, browser: Browser) -> None:
    browser.open(page)
    controls = browser.run("document.querySelectorAll('button, input, summary, a[href]').length")
    reached = set()
    for _ in range(controls + 5):
        browser.press("Tab", "", 9)
        reached.add(
            browser.run(
                "[...document.querySelectorAll('button, input, summary, a[href]')]"
                ".indexOf(document.activeElement)"
            )
        )
    shown = browser.run(
        "[...document.querySelectorAll('button, input, summary, a[href]')]"
        ".map((e, i) => e.checkVisibility() ? i : -1).filter(i => i >= 0)"
    )
    assert set(shown) <= reached


def test_searching_hides_the_other_rows(page: Path, browser: Browser) -> None:
    browser.open(page)
    column = column_of(browser, "model")
    browser.run("document.querySelector('input[type=search]').focus()")
    browser.send("Input.insertText", text="dataset00 fullres")
    assert len(browser.run(COLUMN.format(column))) == 10
    browser.send("Input.insertText", text=" no-such-model")
    assert browser.run(COLUMN.format(column)) == []
    assert "0 of 12 rows" in browser.run("document.body.innerText")


def test_nothing_is_loaded_and_nothing_goes_wrong(page: Path, browser: Browser) -> None:
    browser.requests.clear()
    browser.errors.clear()
    browser.open(page)
    own = [url for url in browser.requests if not url.startswith("data:")]
    assert own == [page.as_uri()]
    assert browser.errors == []


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_part_is_wider_than_the_window(page: Path, browser: Browser, width: int) -> None:
    browser.open(page, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_the_table_fits_a_desktop_and_the_picture_a_phone(page: Path, browser: Browser) -> None:
    browser.open(page, width=1280)
    fits = "(() => { const s = document.querySelector('table.sortable').closest('.scroll');" \
        "return s.scrollWidth <= s.clientWidth; })()"  # fmt: skip
    assert browser.run(fits)
    browser.open(page, width=390)
    shown = "[...document.querySelectorAll('#ranking img')].filter(i => i.checkVisibility())"
    assert browser.run(f"{shown}.length") == 1
    right = browser.run(f"{shown}[0].getBoundingClientRect().right")
    assert 200 < right <= 390  # the best stand at the right


def test_a_cut_table_shows_that_there_is_more(page: Path, browser: Browser) -> None:
    browser.open(page, width=390)
    cut = browser.run(
        "(() => { const s = document.querySelector('table.sortable').closest('.scroll');"
        "return [s.scrollWidth > s.clientWidth, getComputedStyle(s).backgroundImage]; })()"
    )
    assert cut[0]
    assert "gradient" in cut[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(page: Path, browser: Browser, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.send("Emulation.setEmulatedMedia", features=features)
    browser.open(page)
    ratio, where = browser.run(CONTRAST)
    assert ratio >= 4.5, where


def test_on_paper_the_table_is_whole(page: Path, browser: Browser) -> None:
    browser.open(page, width=717)  # of A4 without Chromium's margins
    browser.send("Emulation.setEmulatedMedia", media="print")
    right, inside = browser.run(
        "(() => { const t = document.querySelector('table.sortable');"
        "return [t.getBoundingClientRect().right, getComputedStyle(t.tHead).breakInside]; })()"
    )
    browser.send("Emulation.setEmulatedMedia", media="")
    assert right <= 717
    assert inside == "avoid"  # else no page but the first has the header
