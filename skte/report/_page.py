"""A ranking as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from skte import __version__
from skte._files import check_writable, write_text_atomically
from skte._table import NONE, Html, element
from skte.report._evidence import (
    TITLES,
    Cell,
    dataset_section,
    explanation_section,
    folded,
    number,
    picture,
    probe_section,
    provenance_section,
    section,
    seen_section,
    table,
    voxel_section,
)
from skte.report._ranking_displays import LayerScoreDisplay, RankingDisplay
from skte.report._results import FittedSelector, results_of, results_rows
from skte.selection import DatasetRanks, Ranking


def write_report(
    ranked: FittedSelector | DatasetRanks,
    path: str | os.PathLike[str],
    *,
    title: str = "Ranking of pre-trained models",
    n_cases: int = 3,
    explain: bool = True,
    command: str | None = None,
) -> Path:
    """Write a page that shows a ranking and what it rests on.

    The page is one file with its pictures, style and script; nothing is loaded from
    elsewhere. It holds paths of this machine only where the message of a failure names one.

    Parameters
    ----------
    ranked : ModelBankSelector, HalvingModelBankSelector or DatasetRanks
        A fitted selector. Of several datasets, the page has the ranks side by side, and answer,
        scores, warnings and provenance of each; for all else, write a page of one of its
        ``selectors``.
    path : path-like
        Ends in ``.html``. An existing file is replaced in one step.
    title : str, default="Ranking of pre-trained models"
        Title of the page.
    n_cases : int, default=3
        Cases of a single dataset whose slices are shown, evenly spaced.
    explain : bool, default=True
        Whether to run the best model once more (or take its features from the cache) to
        show which classes and cases are inconsistent.
    command : str, optional
        What was run, for the list of facts, as it is.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ValueError
        If the name does not end in ``.html``, or the selector is not fitted.
    OSError
        If the file cannot be written; raised before the best model runs once more.
    ImportError
        Without matplotlib (``pip install 'skte[plot]'``).

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from skte import LogME, ModelBankSelector
    >>> from skte.datasets import make_phantoms
    >>> from skte.demo import small_unet
    >>> from skte.report import write_report
    >>> bank = {name: small_unet(widths=(4, 8)) for name in ("a", "b")}
    >>> cases = make_phantoms(2, size=(16, 16, 16))
    >>> selector = ModelBankSelector(LogME(), reference=False).fit(bank, cases)
    >>> with TemporaryDirectory() as folder:
    ...     page = write_report(selector, f"{folder}/ranking.html").read_text("utf-8")
    >>> "<title>Ranking of pre-trained models</title>" in page
    True
    """
    if Path(path).suffix.lower() != ".html":
        raise ValueError(f"{path}: a report is an .html file, not {Path(path).suffix!r}.")
    if find_spec("matplotlib") is None:
        raise ImportError("A report needs matplotlib: pip install 'skte[plot]'.")
    if isinstance(ranked, DatasetRanks):
        check_writable(path)
        return write_text_atomically(path, _datasets_page(title, ranked, command))
    results = results_of(ranked)
    check_writable(path)
    sections = [_ranking_section(ranked), _how_to_read("interval_low" in results)]
    n_all = len(ranked.dataset_)
    shown = sorted({round(i * (n_all - 1) / max(1, n_cases - 1)) for i in range(n_cases)})
    if shown:
        sections.append(_guarded("voxels", lambda: voxel_section(ranked, shown)))
    if shown and explain:
        sections.append(_guarded("probe", lambda: probe_section(ranked, shown)))
    sections.append(_layer_section(ranked))
    if explain:
        sections.append(_guarded("cases", lambda: explanation_section(ranked, ranked.best_name_)))
    sections += [
        _warning_section(results),
        seen_section(ranked),
        dataset_section(ranked),
        _cost_section(results),
        provenance_section(ranked, command),
    ]
    looked = f"{len(ranked.names_)} models, {n_all} labelled cases"
    return write_text_atomically(path, _page(title, ranked.answer_.above, looked, TITLES, sections))


def _guarded(key: str, make: Callable[[], Html]) -> Html:
    """Make a section; what cannot be shown costs it alone, not the report."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # reported when the model was ranked
            return make()
    except (ValueError, OSError) as error:
        return section(key, element("p", f"Cannot be shown: {error}", class_="warn"))


def _datasets_page(title: str, found: DatasetRanks, command: str | None) -> str:
    """Lay out the ranks on several datasets, and each dataset below them."""
    links = {key: TITLES[key] for key in ("ranking", "reading")}
    n_models = len(found.names)
    rows = [
        [
            _last(mean),
            name,
            *(
                _last(rank) if rank == NONE else Cell(str(rank), rank, _tint(rank, n_models))
                for rank in ranks
            ),
        ]
        for mean, name, *ranks in found.rows()
    ]
    who = next(iter(next(iter(found.selectors.values())).estimators_)) or "score"
    caption = f"Ranks by {who}, best on average first"
    about = (
        "The stronger the colour, the better the rank. A model that failed on a dataset has no "
        "mean rank. Scores of different datasets cannot be compared; ranks can."
    )
    sure = any("interval_low" in one.results_ for one in found.selectors.values())
    sections = [
        section(
            "ranking",
            table(found.header, rows, caption=caption, sortable=True),
            element("p", about, class_="soft"),
        ),
        _how_to_read(sure),
    ]
    for i, (name, selector) in enumerate(found.selectors.items()):
        links[f"dataset-{i}"] = name
        sections += [
            _ranking_section(selector, f"dataset-{i}", name, selector.answer_.above),
            _warning_section(selector.results_, f"warnings-{i}", f"{name}: warnings"),
            provenance_section(selector, command, f"provenance-{i}", f"{name}: provenance"),
        ]
    looked = f"{n_models} models, {len(found.datasets)} datasets"
    return _page(title, found.answer.choice, looked, links, sections)


def _last(value: Any) -> Any:
    """Return a rank, or a dash that is sorted behind all ranks."""
    return Cell(NONE, np.inf) if value == NONE else value


def _tint(rank: float, n_models: int) -> float:
    """Return how strong a tint is: the better the rank, the stronger."""
    last = max(2, n_models)
    return (last - rank) / (last - 1)


def _page(
    title: str, spoken: Sequence[str], looked: str, links: Mapping[str, str], sections: list[Html]
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
    items = [
        element("li", element("a", text, href=f"#{key}"))
        for key, text in links.items()
        if any(f'<section id="{key}"' in s for s in kept)
    ]
    body = element(
        "body",
        element("a", "Skip to the ranking", href="#ranking", class_="skip"),
        element(
            "header",
            element("h1", title),
            element("p", looked, class_="soft"),
            [element("p", sentence, class_="verdict") for sentence in spoken],
            element("nav", element("ul", items), aria_label="Sections"),
        ),
        element("main", kept),
        element("footer", element("p", f"Written by skte {__version__}. Research software, "
                                  "not a medical device.")),
        element("script", Html(script)),
    )  # fmt: skip
    return f'<!doctype html>\n<html lang="en">\n{head}\n{body}\n</html>\n'


def _ranking_section(
    selector: FittedSelector, key: str = "ranking", title: str = "", spoken: Sequence[str] = ()
) -> Html:
    """Return the table of all models, what it rests on, and its picture."""
    ranking = selector.ranking_
    notes = {
        row["name"]: "failed" if row["error"] else "warned" if row["warnings"] else ""
        for row in results_rows(selector.results_)
    }
    status = [notes[name] for name in ranking] if any(notes.values()) else []
    several = len(ranking.columns) > 1
    body = []
    for i, (rank, name, *cells) in enumerate(ranking.rows()):
        if several:
            cells[: len(ranking.columns)] = _score_cells(ranking, i)
        cells = [Cell(NONE, -np.inf) if cell == NONE else cell for cell in cells]
        body.append([_last(rank), name, *map(_unbroken, cells), *status[i : i + 1]])
    first = next(iter(ranking.columns), "")
    who = f" by {first}" if first else ""
    explained = []
    if several:
        explained.append(
            "In brackets: ranks by each estimator, the stronger the colour the better."
        )
    explained.append("Columns in parentheses are no estimators: what a score has to beat.")
    display = RankingDisplay.from_selector(selector)
    caption = f"Points: scores{who}; higher is better."
    if display.intervals is not None:
        caption += " Bars: confidence intervals. Models of one group cannot be told apart."
    header = [*ranking.header, *(["status"] if status else [])]
    alt = f"Scores of the models, best on top. The first is {ranking[0]}."
    return section(
        key,
        [element("p", sentence, class_="verdict") for sentence in spoken],
        table(
            header, body, caption=f"Models, best first{who and f', ordered{who}'}", sortable=True
        ),
        [element("p", line, class_="soft") for line in (*explained, *ranking.answer.below)],
        _sure_table(ranking),
        picture(display.figure_, alt, caption, narrow=display.narrow().plot().figure_),
        title=title,
    )


def _score_cells(ranking: Ranking, i: int) -> list[Any]:
    """Return the scores of a model by several estimators, with ranks as numbers and a tint."""
    cells: list[Any] = []
    for scores, ranks in zip(ranking.columns.values(), ranking.ranks_by_column(), strict=True):
        score, rank = float(scores[i]), float(ranks[i])
        tint = 0.0 if np.isnan(rank) else _tint(rank, len(ranking))
        cells.append(NONE if np.isnan(rank) else Cell(f"{number(score)} ({rank:g})", score, tint))
    return cells


def _unbroken(cell: Any) -> Any:
    return element("span", cell, class_="one") if type(cell) is str else cell


def _sure_table(ranking: Ranking) -> Html | None:
    """Return how sure the order is, where that is not part of the ranking's own table."""
    found = ranking.sure_table()
    if found is None:
        return None
    title, header, rows = found
    cells = [[_last(rank), name, *map(_unbroken, more)] for rank, name, *more in rows]
    return table(header, cells, caption=title)


def _layer_section(selector: FittedSelector) -> Html:
    """Return the layers and their scores, if a model has any."""
    if not any(map(len, selector.results_["layer_scores"])):
        return Html("")
    found = results_rows(selector.results_)
    joined = any(len(row["layers"]) > len(row["layer_scores"]) == 1 for row in found)
    rows = []
    for row in found:
        shown = row["layers"]
        if not joined:
            pairs = zip(shown, row["layer_scores"], strict=False)
            shown = [f"{name}: {score:.4g}" for name, score in pairs]
        listed = Html("<br>".join(element("code", text) for text in shown))
        rows.append([_last(NONE if row["rank"] is None else row["rank"]), row["name"], listed])
    header = ["rank", "model", "layers, coarse to fine"]
    names = table(header, rows, caption="Layers that were read")
    if joined:
        about = "A score is of all layers of a model together; no layer has one of its own."
        return section("layers", element("p", about), folded("Names of the layers", names))
    about = (
        "A score is the mean over a model's layers. A model that leads by one layer alone, or "
        "whose deepest layer collapsed, shows here."
    )
    colours = picture(
        LayerScoreDisplay.from_selector(selector).figure_,
        "Score of every layer of every model, as a table of colours.",
        "Darker is lower. Grey: the layer collapsed. Empty: the model has no such layer.",
    )
    more = folded("Names of the layers and their scores", names)
    return section("layers", element("p", about), colours, more)


def _warning_section(results: Mapping[str, Any], key: str = "warnings", title: str = "") -> Html:
    """Return failures and warnings by model."""
    found = []
    for row in results_rows(results):
        if row["error"]:
            text = element("strong", f"{row['name']} failed: ")
            found.append(element("p", text, row["error"], class_="warn"))
        for text in row["warnings"]:
            found.append(element("p", element("strong", f"{row['name']}: "), text, class_="warn"))
    nothing = element("p", "No model failed, and none gave a warning.")
    return section(key, found or nothing, title=title)


def _cost_section(results: Mapping[str, Any]) -> Html:
    """Return what each model took."""
    columns = {
        "n_windows": "windows",
        "n_cached": "cases from the cache",
        "seconds_load": "waiting for cases (s)",
        "seconds_forward": "forward passes (s)",
        "seconds_score": "scoring (s)",
    }
    rows = [
        [row["name"], *(v if isinstance(v := row[key], int) else round(v, 2) for key in columns)]
        for row in results_rows(results)
    ]
    seconds = [key for key in columns if key.startswith("seconds")]
    total = sum(float(np.nansum(results[key])) for key in seconds)
    title = "Cost of each model"
    return section(
        "cost",
        element("p", f"{total:.1f} s for all models, added up; no model was trained."),
        folded(title, table(["model", *columns.values()], rows, caption=title)),
    )


def _how_to_read(sure: bool) -> Html:
    """Return the section that explains the page."""
    lines = [
        "Higher is better. A score orders models on this dataset under these settings. It has no "
        "scale, predicts no Dice value, and cannot be compared with scores of another dataset, "
        "another estimator or other settings.",
        "The ranking says which model to fine-tune first, not that it will be good enough. Where "
        "you can afford it, fine-tune the first two or three.",
    ]
    if sure:
        lines += [
            "The interval and the ranks say what other labelled cases of the same kind could have "
            "given. These cases cannot tell models from the first that are not clearly behind it: "
            "choose among them by size, licence or speed.",
            "“first in” is the share of resampled sets of cases in which the model comes first. "
            "It is not the probability of the best Dice: none of this says how well a score "
            "predicts performance after fine-tuning.",
        ]
    lines += [
        "-∞ or “collapsed”: a layer gives the same features everywhere. “failed”: the model could "
        "not be run; see the warnings.",
        "“untrained twin”: the score of an untrained network of the same architecture. Where "
        "that is not clearly below the leader, the order says nothing about training.",
        "Models were compared at the same voxels. Look at the pictures: if labels lie beside the "
        "structures, no score means anything.",
    ]
    return section("reading", element("ul", [element("li", x) for x in lines]))
