"""Sections of the report that the table of results is enough for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skte.report._html import Html, element, picture, table
from skte.report._layer_score_display import LayerScoreDisplay
from skte.report._ranking_display import RankingDisplay
from skte.report._results_file import results_rows

__all__ = [
    "cost_section", "how_to_read", "layer_section", "ranking_section", "section", "verdict",
    "warning_section",
]  # fmt: skip


def section(key: str, title: str, *children: object) -> Html:
    """Return a part of the page with a heading that links lead to."""
    heading = element("h2", title, id=f"{key}-title")
    return element("section", heading, children, id=key, aria_labelledby=f"{key}-title")


def verdict(results: Mapping[str, Any], spoken: str | None) -> str:
    """Say in a sentence what the ranking says."""
    rows = results_rows(results)
    best, n = rows[0]["name"], len(rows)
    if spoken is not None:
        return spoken
    return (
        f"{best} scores best of {n}. How sure that is was not asked: pass confidence_level "
        "(0.9, say) to know which models the data can tell apart."
    )


def ranking_section(results: Mapping[str, Any]) -> Html:
    """Return the table of all models and its picture."""
    rows = results_rows(results)
    keys = [k.removeprefix("score_") for k in results if k.startswith("score_")]
    sure = "interval_low" in results
    header = ["rank", "model", *(keys or ["score"])]
    header += ["interval", "ranks", "P(best)", "group"] if sure else []
    header += ["status"]
    body = []
    for row in rows:
        scores = [float(row[f"score_{k}"]) for k in keys] or [float(row["score"])]
        cells: list[Any] = [row["rank"], row["name"], *scores]
        cells += _confidence_cells(row) if sure else []
        cells.append("failed" if row.get("error") else "warned" if row.get("warnings") else "ok")
        body.append(cells)
    ranked = f"; ordered by {keys[0]}" if len(keys) > 1 else ""
    figure = RankingDisplay.from_results(results).figure_
    alt = f"Scores of the models, best on top. The first is {rows[0]['name']}."
    caption = "Points: scores; higher is better." + (
        " Bars: confidence intervals. Models of one group cannot be told apart." if sure else ""
    )
    return section(
        "ranking",
        "Ranking",
        table(header, body, caption=f"Models, best first{ranked}", sortable=True),
        picture(figure, alt, caption),
    )


def _confidence_cells(row: Mapping[str, Any]) -> list[Any]:
    low, high = row["interval_low"], row["interval_high"]
    span = "" if np.isnan(low) else f"{low:.4g} to {high:.4g}"
    return [
        element("span", span, class_="one"),
        Html(f"{int(row['rank_low'])}-{int(row['rank_high'])}"),
        round(float(row["prob_best"]), 2),
        int(row["group"]),
    ]


def layer_section(results: Mapping[str, Any]) -> Html | None:
    """Return the scores of layers, or None where no model has any."""
    if "layer_scores" not in results or not any(len(s) for s in results["layer_scores"]):
        return None
    figure = LayerScoreDisplay.from_results(results).figure_
    rows = [
        [row["rank"], row["name"], Html(_layer_list(row["layers"], row["layer_scores"]))]
        for row in results_rows(results)
    ]
    caption = "Darker is lower. Grey: no such layer, or it collapsed."
    return section(
        "layers",
        "Layers",
        element(
            "p",
            "A score is the mean over a model's layers. A model that leads by one layer alone, or "
            "whose deepest layer collapsed, shows here.",
        ),
        picture(figure, "Score of every layer of every model, as a table of colours.", caption),
        element(
            "details",
            element("summary", "Names of the layers and their scores"),
            table(
                ["rank", "model", "layers, coarse to fine"], rows, caption="Layers that were read"
            ),
        ),
    )


def _layer_list(layers: Sequence[str], scores: Sequence[float]) -> str:
    pairs = zip(layers, scores, strict=False)
    return Html("<br>").join(element("code", f"{name}: {score:.4g}") for name, score in pairs)


def warning_section(results: Mapping[str, Any]) -> Html:
    """Return failures and warnings by model."""
    found = []
    for row in results_rows(results):
        if row.get("error"):
            text = element("strong", f"{row['name']} failed: ")
            found.append(element("p", text, row["error"], class_="warn"))
        for told in row.get("warnings") or ():
            found.append(element("p", element("strong", f"{row['name']}: "), told, class_="warn"))
    nothing = element("p", "No model failed, and none gave a warning.")
    return section("warnings", "Warnings", found or nothing)


def cost_section(results: Mapping[str, Any]) -> Html | None:
    """Return what each model took, or None where that is not known."""
    columns = {
        "n_windows": "windows",
        "n_cached": "cases from the cache",
        "seconds_load": "waiting for cases (s)",
        "seconds_forward": "forward passes (s)",
        "seconds_score": "scoring (s)",
    }
    known = {key: title for key, title in columns.items() if key in results}
    if not known:
        return None
    rows = [[row["name"], *(_cost(row[key]) for key in known)] for row in results_rows(results)]
    seconds = [key for key in known if key.startswith("seconds")]
    total = sum(float(np.nansum(results[key])) for key in seconds)
    return section(
        "cost",
        "Cost",
        element("p", f"{total:.1f} s for all models, added up; no model was trained."),
        element(
            "details",
            element("summary", "Cost of each model"),
            table(["model", *known.values()], rows, caption="Cost of each model"),
        ),
    )


def _cost(value: Any) -> int | float:
    return int(value) if isinstance(value, int) else round(float(value), 2)


def how_to_read(sure: bool) -> Html:
    """Return the page's own manual."""
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
            "given. Models in one group cannot be told apart by these cases: choose among them by "
            "size, licence or speed.",
            "P(best) is the share of resampled sets of cases in which the model comes first. None "
            "of this says how well a score predicts performance after fine-tuning.",
        ]
    lines += [
        "-∞ or “collapsed”: a layer gives the same features everywhere. “failed”: the model could "
        "not be run; see the warnings.",
        "CC-FV looks at whether a class looks alike in every case and whether features are "
        "various. An untrained network can have both, so compare with a second estimator.",
        "Models were compared at the same voxels. Look at the pictures: if labels lie beside the "
        "structures, no score means anything.",
    ]
    return section("reading", "How to read this", element("ul", [element("li", x) for x in lines]))
