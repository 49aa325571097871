"""One self-contained HTML file about a ranking."""

from __future__ import annotations

import base64
import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from skte import __version__
from skte._files import check_writable, write_text_atomically
from skte.report._html import Html, element
from skte.report._report_evidence import (
    bank_section,
    dataset_section,
    explanation_section,
    provenance_section,
    voxel_section,
)
from skte.report._report_ranking import (
    cost_section,
    how_to_read,
    layer_section,
    ranking_section,
    section,
    verdict,
    warning_section,
)
from skte.report._results_of import check_columns, results_of
from skte.selection import ModelBankSelector

__all__ = ["write_report"]


def write_report(
    ranked: ModelBankSelector | Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    title: str = "Ranking of pre-trained models",
    n_cases: int = 3,
    explain: bool = True,
) -> Path:
    """Write a page that shows a ranking and what it rests on.

    It is one file: pictures, style and script are inside, nothing is loaded from
    elsewhere. Paths of this machine are in it where the message of a failure names one.

    Parameters
    ----------
    ranked : ModelBankSelector or mapping of str to sequence
        A fitted selector. Or its ``results_`` alone, which know neither dataset nor bank:
        the page then has the ranking, layers, warnings and cost.
    path : path-like
        Ends in ``.html``. An existing file is replaced in one step.
    title : str, default="Ranking of pre-trained models"
        Of the page.
    n_cases : int, default=3
        Cases whose slices are shown, evenly spaced in the dataset.
    explain : bool, default=True
        Whether the best model is run once more (or comes from the cache) to tell which
        classes and cases are inconsistent.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ValueError
        If the name does not end in ``.html``, the selector is not fitted, or a column is missing.
    OSError
        If the file cannot be written; told before the best model runs once more.
    ImportError
        Without matplotlib (``pip install 'skte[plot]'``).

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from skte.report import write_report
    >>> results = {"name": ["a", "b"], "score": [-1.0, -2.0], "rank": [1, 2]}
    >>> with TemporaryDirectory() as folder:
    ...     page = write_report(results, f"{folder}/ranking.html").read_text("utf-8")
    >>> "<title>Ranking of pre-trained models</title>" in page
    True
    """
    if Path(path).suffix.lower() != ".html":
        raise ValueError(f"{path}: a report is written as .html, not {Path(path).suffix!r}.")
    if find_spec("matplotlib") is None:
        raise ImportError("A report needs matplotlib: pip install 'skte[plot]'.")
    selector = None if isinstance(ranked, Mapping) else ranked
    results = ranked if isinstance(ranked, Mapping) else results_of(ranked)
    check_columns(results, ["name", "score", "rank"])
    if len(results["name"]) == 0:
        raise ValueError("results lack rows: a report needs a model.")
    check_writable(path)
    sections = [how_to_read("interval_low" in results), ranking_section(results)]
    if selector is not None and n_cases > 0:
        last = len(selector.dataset_) - 1
        shown = sorted({round(i * last / max(1, n_cases - 1)) for i in range(n_cases)})
        sections.append(_guarded("voxels", lambda: voxel_section(selector, shown)))
    sections.append(layer_section(results) or Html(""))
    if selector is not None and explain:
        best = selector.best_name_
        sections.append(_guarded("cases", lambda: explanation_section(selector, best)))
    sections.append(warning_section(results))
    if selector is not None:
        sections += [dataset_section(selector), bank_section(selector)]
    sections.append(cost_section(results) or Html(""))
    if selector is not None:
        sections.append(provenance_section(selector))
    confidence = getattr(selector, "confidence_", None)
    spoken = verdict(results, None if confidence is None else confidence.verdict())
    n_cases_used = None if selector is None else len(selector.dataset_)
    return write_text_atomically(path, _page(title, spoken, results, n_cases_used, sections))


def _guarded(key: str, make: Callable[[], Html]) -> Html:
    """Make a section; what cannot be shown costs it alone, not the report."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were told when the model was ranked
            return make()
    except (ValueError, OSError) as error:
        titles = {"voxels": "What was compared", "cases": "Classes and cases"}
        return section(key, titles[key], element("p", f"Cannot be shown: {error}", class_="warn"))


def _page(
    title: str, spoken: str, results: Mapping[str, Any], n_cases: int | None, sections: list[Html]
) -> str:
    assets = files("skte.report").joinpath("_assets")
    style = assets.joinpath("report.css").read_text(encoding="utf-8")
    script = assets.joinpath("report.js").read_text(encoding="utf-8")
    # Nothing but this script runs, and nothing is loaded, whatever a name may hold.
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(style)),
    )
    kept = [s for s in sections if s]
    links = {"reading": "How to read this", "ranking": "Ranking", "voxels": "What was compared",
             "layers": "Layers", "cases": "Classes and cases", "warnings": "Warnings",
             "dataset": "Dataset", "bank": "Bank", "cost": "Cost",
             "provenance": "Provenance"}  # fmt: skip
    items = [
        element("li", element("a", text, href=f"#{key}"))
        for key, text in links.items()
        if any(f'<section id="{key}"' in s for s in kept)
    ]
    looked = f"{len(results['name'])} models"
    looked += "" if n_cases is None else f", {n_cases} labelled cases"
    body = element(
        "body",
        element("a", "Skip to the ranking", href="#ranking", class_="skip"),
        element(
            "header",
            element("h1", title),
            element("p", looked, class_="soft"),
            element("p", spoken, class_="verdict"),
            element("nav", element("ul", items), aria_label="Sections"),
        ),
        element("main", kept),
        element("footer", element("p", f"Written by skte {__version__}. Research software, "
                                  "not a medical device.")),
        element("script", Html(script)),
    )  # fmt: skip
    return f'<!doctype html>\n<html lang="en">\n{head}\n{body}\n</html>\n'
