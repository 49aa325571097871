"""Links, anchors, files and commands named in the texts exist. Addresses are not visited."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import skte

ROOT = Path(__file__).parents[1]
# Benchmarks are not part of a source distribution.
STUDIES = [*ROOT.glob("benchmarks/README.md")]
TEXTS = [*sorted(ROOT.glob("*.md")), *STUDIES]
TEXTS += [p for p in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in p.parts]

LINK = re.compile(r"\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)")
SOURCE = re.compile(r"(?:src|href)=\"([^\"]+)\"")
NAMED = re.compile(r"`((?:benchmarks|docs|skte|tests)/[\w./*-]*)`")
COMMAND = re.compile(r"python -m (benchmarks\.\w+)")


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and MyST make them."""
    found: list[str] = []
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if not fenced and (match := re.match(r"#+ +(.*)", line)):
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1])
            found.append(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))
    return {
        slug if i == found.index(slug) else f"{slug}-{found[:i].count(slug)}"
        for i, slug in enumerate(found)
    }


def problem(page: Path, target: str) -> str | None:
    """What is wrong with a link of a page."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        good = parts.scheme == "https" and "." in parts.netloc and " " not in target
        return None if good else f"{target}: neither an https address nor a path"
    goal = page if not parts.path else (page.parent / parts.path).resolve()
    if goal.parent in (ROOT / "docs" / "api", ROOT / "docs" / "gallery"):
        goal = source_of(goal)
    if not goal.exists() or not goal.is_relative_to(ROOT):
        return f"{target}: no such file"
    if parts.fragment and (goal.suffix != ".md" or parts.fragment not in anchors(goal)):
        return f"{target}: no such heading"
    return None


def source_of(page: Path) -> Path:
    """What a page is made of that exists once the site is built."""
    if page.stem == "index":
        return ROOT / "docs" / "conf.py"
    if page.parent.name == "api":
        return ROOT / "skte" / page.stem / "__init__.py"
    return ROOT / "docs" / "examples" / f"{page.stem}.py"


def targets(page: Path) -> list[str]:
    """Links and pictures of a page, outside code and formulas."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.M | re.S)
    text = re.sub(r"`[^`\n]*`|\$[^$\n]*\$", lambda code: "_" * len(code[0]), text)
    return [*LINK.findall(text), *SOURCE.findall(text)]


@pytest.mark.parametrize("page", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert [found for target in targets(page) if (found := problem(page, target))] == []


def is_there(name: str) -> bool:
    """The package may be installed elsewhere than in the project."""
    if name.startswith("benchmarks") and not STUDIES:
        return True
    return any(any(root.glob(name)) for root in (ROOT, Path(skte.__file__).parents[1]))


@pytest.mark.parametrize("page", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_benchmarks_that_a_text_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = [name for name in NAMED.findall(text) if not is_there(name.rstrip("/"))]
    commands = [name for name in COMMAND.findall(text) if STUDIES and find_spec(name) is None]
    assert (files, commands) == ([], [])


@pytest.mark.parametrize("page", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_sessions_stand_in_code_blocks(page: Path) -> None:
    """Without a fence, Markdown takes a prompt for a quotation."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert re.findall(r"^>.*$", text, re.M) == []


def test_the_site_reaches_every_page() -> None:
    pages = {page for page in TEXTS if (ROOT / "docs") in page.parents}
    reached, open_pages = set(), [ROOT / "docs" / "index.md"]
    while open_pages:
        page = open_pages.pop()
        if page not in reached:
            reached.add(page)
            for block in re.findall(r"```{toctree}(.*?)```", page.read_text("utf-8"), re.S):
                for entry in re.findall(r"^(?:[^:\s].*<)?([\w/*-]+)>?$", block, re.M):
                    open_pages += page.parent.glob(f"{entry}.md")
    assert pages - reached == set()


@pytest.mark.parametrize(
    ("link", "wrong"),
    [
        ("a.md", None),
        ("a.md#two-words-2-d", None),
        ("#again-1", None),
        ("https://example.org/a_(b)", None),
        ("b.md", "no such file"),
        ("a.md#code", "no such heading"),
        ("#again-2", "no such heading"),
        ("http://example.org", "neither"),
        ("htps://example.org", "neither"),
    ],
)
def test_what_counts_as_a_broken_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, wrong: str | None
) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path.resolve())
    page = tmp_path.resolve() / "a.md"
    page.write_text(
        f"# Again\n\n## Two words: `2-D`\n\n## Again\n\n```bash\n# Code\n```\n\n[x]({link})\n"
    )
    assert targets(page) == [link]
    found = problem(page, link)
    assert (found is None) if wrong is None else (found is not None and wrong in found)
