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
from skte.report._results import FittedSelector, check_columns, results_of, results_rows
from skte.selection import DatasetRanks, Ranking


def write_report(
    ranked: FittedSelector | DatasetRanks | Mapping[str, Any],
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
    ranked : ModelBankSelector, HalvingModelBankSelector, DatasetRanks or mapping
        A fitted selector, or its ``results_`` alone, without sections on dataset and bank. Of
        several datasets, the page has the ranks side by side, and answer, scores, warnings and
        provenance of each; for all else, write a page of one of its ``selectors``.
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
        If the name does not end in ``.html``, the selector is not fitted, or a column is missing.
    OSError
        If the file cannot be written; raised before the best model runs once more.
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
        raise ValueError(f"{path}: a report is an .html file, not {Path(path).suffix!r}.")
    if find_spec("matplotlib") is None:
        raise ImportError("A report needs matplotlib: pip install 'skte[plot]'.")
    if isinstance(ranked, DatasetRanks):
        check_writable(path)
        return write_text_atomically(path, _datasets_page(title, ranked, command))
    selector = None if isinstance(ranked, Mapping) else ranked
    results = ranked if isinstance(ranked, Mapping) else results_of(ranked)
    check_columns(results, ["name", "score", "rank"])
    if len(results["name"]) == 0:
        raise ValueError("results have no rows: a report needs at least one model.")
    check_writable(path)
    ranking = None if selector is None else selector.ranking_
    spoken = _spoken(results, ranking)
    sections = [_ranking_section(results, ranking), _how_to_read("interval_low" in results)]
    if selector is not None and n_cases > 0:
        last = len(selector.dataset_) - 1
        shown = sorted({round(i * last / max(1, n_cases - 1)) for i in range(n_cases)})
        sections.append(_guarded("voxels", lambda: voxel_section(selector, shown)))
        if explain:
            sections.append(_guarded("probe", lambda: probe_section(selector, shown)))
    sections.append(_layer_section(results))
    if selector is not None and explain:
        best = selector.best_name_
        sections.append(_guarded("cases", lambda: explanation_section(selector, best)))
    sections.append(_warning_section(results))
    if selector is not None:
        sections += [seen_section(selector), dataset_section(selector)]
    sections.append(_cost_section(results))
    if selector is not None:
        sections.append(provenance_section(selector, command))
    looked = f"{len(results['name'])} models"
    looked += "" if selector is None else f", {len(selector.dataset_)} labelled cases"
    return write_text_atomically(path, _page(title, spoken, looked, TITLES, sections))


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
            mean if isinstance(mean, float) else Cell(NONE, np.inf),
            name,
            *(
                Cell(NONE, np.inf) if rank == NONE else Cell(str(rank), rank, _tint(rank, n_models))
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
            _ranking_section(
                selector.results_, selector.ranking_, f"dataset-{i}", name, selector.answer_.above
            ),
            _warning_section(selector.results_, f"warnings-{i}", f"{name}: warnings"),
            provenance_section(selector, command, f"provenance-{i}", f"{name}: provenance"),
        ]
    looked = f"{n_models} models, {len(found.datasets)} datasets"
    return _page(title, list(found.answer.choice), looked, links, sections)


def _tint(rank: int, n_models: int) -> float:
    """Return how strong a tint is: the better the rank, the stronger."""
    last = max(2, n_models)
    return (last - rank) / (last - 1)


def _page(
    title: str, spoken: list[str], looked: str, links: Mapping[str, str], sections: list[Html]
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


def _spoken(results: Mapping[str, Any], ranking: Ranking | None) -> list[str]:
    """Return what belongs on top: the answer, and what speaks against it."""
    if ranking is not None:
        return list(ranking.answer.above)
    rows = results_rows(results)
    return [
        f"{rows[0]['name']} scores best of {len(rows)}. Write the report of a fitted selector to "
        "see what speaks against it."
    ]


def _ranking_section(
    results: Mapping[str, Any],
    ranking: Ranking | None,
    key: str = "ranking",
    title: str = "",
    spoken: Sequence[str] = (),
) -> Html:
    """Return the table of all models, what it rests on, and its picture."""
    rows = results_rows(results)
    keys = [k.removeprefix("score_") for k in results if k.startswith("score_")] or [""]
    facts = {
        "n_cases": "cases",
        "n_parameters": "parameters",
        "width": "finest width",
        "untrained_twin": "untrained twin",
        "zero_shot": "zero-shot Dice",
    }
    known = [key for key in facts if any(row.get(key) is not None for row in rows)]
    status = ["failed" if r.get("error") else "warned" if r.get("warnings") else "" for r in rows]
    body = []
    for row, state in zip(rows, status, strict=True):
        cells: list[Any] = [_rank_of(row), _marked(row)]
        cells += [_score_cell(row, key, keys, len(rows)) for key in keys]
        cells += [Cell(NONE, -1) if row[key] is None else row[key] for key in known]
        body.append([*cells, state] if any(status) else cells)
    header = ["rank", "model", *(key or "score" for key in keys), *(f"({facts[k]})" for k in known)]
    header += ["status"] if any(status) else []
    explained = []
    if len(keys) > 1:
        explained.append(
            "In brackets: ranks by each estimator, the stronger the colour the better."
        )
    if known:
        explained.append("Columns in parentheses are no estimators: what a score has to beat.")
    sure = "interval_low" in results
    display = RankingDisplay.from_results(results)
    who = f" by {keys[0]}" if keys[0] else ""
    caption = f"Points: scores{who}; higher is better." + (
        " Bars: confidence intervals. Models of one group cannot be told apart." if sure else ""
    )
    alt = f"Scores of the models, best on top. The first is {rows[0]['name']}."
    below = () if ranking is None else ranking.answer.below
    return section(
        key,
        [element("p", sentence, class_="verdict") for sentence in spoken],
        table(
            header, body, caption=f"Models, best first{who and f', ordered{who}'}", sortable=True
        ),
        [element("p", line, class_="soft") for line in (*explained, *below)],
        _sure_table(rows, ranking, keys[0]) if sure else None,
        picture(display.figure_, alt, caption, narrow=display.narrow().plot().figure_),
        title=title,
    )


def _score_cell(row: Mapping[str, Any], key: str, keys: Sequence[str], n_models: int) -> Any:
    """Return a score, with its rank as a number and a tint where there are several."""
    score, rank = (row[f"{what}_{key}" if key else what] for what in ("score", "rank"))
    if rank is None:
        return Cell(NONE, -np.inf)
    if len(keys) == 1:
        return score
    return Cell(f"{number(score)} ({rank})", score, _tint(rank, n_models))


def _rank_of(row: Mapping[str, Any]) -> Any:
    return Cell(NONE, np.inf) if row["rank"] is None else row["rank"]


def _marked(row: Mapping[str, Any]) -> str:
    return f"{row['name']} (untrained)" if row.get("untrained") else str(row["name"])


def _sure_table(rows: Sequence[Mapping[str, Any]], ranking: Ranking | None, key: str) -> Html:
    """Return intervals, ranks and shares of first places of the estimator that ranks."""
    behind: set[str] = set()
    if ranking is not None and ranking.confidence is not None:
        behind = set(ranking.confidence.behind())
    body = []
    for row in rows:
        low, high, share = row["interval_low"], row["interval_high"], row["first_share"]
        texts = ["", "", ""]
        if row["rank"] is not None:
            texts = [
                "" if np.isnan(low) else f"{low:.4g} to {high:.4g}",
                f"{int(row['rank_low'])}-{int(row['rank_high'])}",
                "" if np.isnan(share) else f"{100 * share:.0f} %",
            ]
        cells = [element("span", text, class_="one") for text in texts]
        said = Html("clearly" if row["name"] in behind else "")
        body.append([_rank_of(row), _marked(row), *cells, said])
    who = f" of {key}" if key else ""
    header = ["rank", "model", f"interval{who}", "ranks", "first in", "behind the first"]
    return table(header, body, caption=f"How sure the order{who} is")


def _layer_section(results: Mapping[str, Any]) -> Html:
    """Return the layers and their scores, if a model has any."""
    if not any(len(scores) for scores in results.get("layer_scores", ())):
        return Html("")
    found = results_rows(results)
    joined = any(len(row["layers"]) > len(row["layer_scores"]) == 1 for row in found)
    rows = []
    for row in found:
        shown = row["layers"]
        if not joined:
            pairs = zip(shown, row["layer_scores"], strict=False)
            shown = [f"{name}: {score:.4g}" for name, score in pairs]
        listed = Html("<br>".join(element("code", text) for text in shown))
        rows.append([_rank_of(row), row["name"], listed])
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
        LayerScoreDisplay.from_results(results).figure_,
        "Score of every layer of every model, as a table of colours.",
        "Darker is lower. Grey: the layer collapsed. Empty: the model has no such layer.",
    )
    more = folded("Names of the layers and their scores", names)
    return section("layers", element("p", about), colours, more)


def _warning_section(results: Mapping[str, Any], key: str = "warnings", title: str = "") -> Html:
    """Return failures and warnings by model."""
    found = []
    for row in results_rows(results):
        if row.get("error"):
            text = element("strong", f"{row['name']} failed: ")
            found.append(element("p", text, row["error"], class_="warn"))
        for text in row.get("warnings") or ():
            found.append(element("p", element("strong", f"{row['name']}: "), text, class_="warn"))
    nothing = element("p", "No model failed, and none gave a warning.")
    return section(key, found or nothing, title=title)


def _cost_section(results: Mapping[str, Any]) -> Html:
    """Return what each model took, where that is known."""
    columns = {
        "n_windows": "windows",
        "n_cached": "cases from the cache",
        "seconds_load": "waiting for cases (s)",
        "seconds_forward": "forward passes (s)",
        "seconds_score": "scoring (s)",
    }
    known = {key: title for key, title in columns.items() if key in results}
    if not known:
        return Html("")
    rows = [
        [row["name"], *(v if isinstance(v := row[key], int) else round(v, 2) for key in known)]
        for row in results_rows(results)
    ]
    seconds = [key for key in known if key.startswith("seconds")]
    total = sum(float(np.nansum(results[key])) for key in seconds)
    title = "Cost of each model"
    return section(
        "cost",
        element("p", f"{total:.1f} s for all models, added up; no model was trained."),
        folded(title, table(["model", *known.values()], rows, caption=title)),
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
