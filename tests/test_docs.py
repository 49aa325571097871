"""Every estimator has a page that says what it is, when it misleads and what it costs."""

from __future__ import annotations

import doctest
import re
import tomllib
from pathlib import Path

import pytest

import skte
from skte import estimators

PAGES = Path(__file__).parents[1] / "docs" / "estimators"
NAMES = [name for name in estimators.__all__ if name != "TransferabilityEstimator"]
HEADINGS = [
    "Formula",
    "Sign and range",
    "Parameters that matter",
    "Laws",
    "When it misleads",
    "Cost",
    "Reference",
]


def page_of(name: str) -> str:
    page = PAGES / f"{name.lower()}.md"
    if not page.is_file():
        pytest.fail(f"write {page} with the headings {', '.join(HEADINGS)}", pytrace=False)
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_estimator_has_a_complete_page(name: str) -> None:
    text = page_of(name)
    assert f"`{name}`" in text
    assert re.findall(r"^## (.*)$", text, re.M) == HEADINGS
    sections = re.split(r"^## .*$", text, flags=re.M)
    assert all(section.strip() for section in sections)
    assert re.search(r"^\$\$\n.+?\n\$\$$", text, re.M | re.S)
    assert text.count("$$") % 2 == 0
    assert re.sub(r"\$\$.*?\$\$", "", text, flags=re.S).count("$") % 2 == 0
    assert re.search(r"[Hh]igher\s+is\s+better", text)
    assert len(text.splitlines()) < 100


@pytest.mark.parametrize("name", NAMES)
def test_pages_name_parameters_that_exist(name: str) -> None:
    text = page_of(name)
    section = text.split("## Parameters that matter")[1].split("\n## ")[0]
    parameters = getattr(estimators, name)().get_params(deep=False)
    named = [
        match
        for line in re.findall(r"^- (.*?):? ", section, re.M)
        for match in re.findall(r"`([a-z_]+)", line)
    ]
    assert set(named) <= set(parameters)


def test_index_links_every_page() -> None:
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\((\w+\.md)\)", index, re.M)
    assert sorted(rows) == sorted((name, f"{name.lower()}.md") for name in NAMES), (
        "the table of docs/estimators/index.md must hold one row for each estimator"
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Ensemble"])  # by its members
def test_index_agrees_with_the_tags(name: str) -> None:
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| \[{name}\].*", index, re.M)
    assert row, f"add a row for {name} to docs/estimators/index.md"
    _, needs, _, labels, _ = row[0].strip("| ").split(" | ")
    tags = getattr(estimators, name)().tags
    assert needs == ("source head" if tags.source_head else "features")
    assert labels.partition(",")[0] == ("yes" if tags.labels else "label-free")


def test_readme_lists_every_estimator() -> None:
    readme = (PAGES.parents[1] / "README.md").read_text(encoding="utf-8")
    listed = readme.partition("\n## Estimators\n")[2].partition("[Each page]")[0]
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(NAMES)


def test_page_names_the_scores_whose_bias_is_corrected() -> None:
    text = (PAGES.parent / "how-to" / "confidence.md").read_text("utf-8")
    listed = re.search(r"The scores of (.*?) have a bias", text, re.S)
    assert listed
    expected = {name for name in NAMES if getattr(estimators, name)().tags.corrects_bias}
    assert set(re.findall(r"`(\w+)`", listed[1])) == expected


HOW_TO = [p for p in sorted(PAGES.parent.rglob("*.md")) if ">>> " in p.read_text(encoding="utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("page", HOW_TO, ids=lambda p: p.name)
def test_examples_of_how_to_pages_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # what pages leave goes with it
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=flags)
    assert tried
    assert not failed


def test_badges_and_citation_of_readme_are_true() -> None:
    root = PAGES.parents[1]
    readme = (root / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    cff = (root / "CITATION.cff").read_text(encoding="utf-8")
    badges = re.findall(r"img\.shields\.io/badge/(\S+?)-blue\)", readme)
    python = project["project"]["requires-python"].replace(">=", "%E2%89%A5")
    licence = project["project"]["license"]
    strict = "strict" if project["tool"]["mypy"]["strict"] else "loose"
    assert badges == [
        f"python-{python}",
        f"licence-{licence.replace('-', '--')}",
        f"typing-{strict}",
    ]
    entry = dict(re.findall(r"^  (\w+) += \{(.*)\},?$", readme, re.M))
    assert entry["version"] == skte.__version__
    assert entry["license"] == licence
    assert f'title: "{entry["title"]}"' in cff
    assert f"version: {entry['version']}\n" in cff
    assert f"license: {licence}\n" in cff
