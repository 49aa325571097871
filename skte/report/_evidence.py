"""Parts of a page: tables, pictures, and the sections that look at cases and models once more."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from sklearn.base import clone

from skte._table import Html, element, html_table
from skte.bank import digest_problem, entry_digest
from skte.datasets import case_fingerprint, inspect_dataset
from skte.estimators import CCFV, CrossCaseProbe
from skte.extraction import CaseStore, SegmentationFeatureExtractor
from skte.report._feature_displays import CaseDistanceDisplay, FeatureEmbeddingDisplay
from skte.report._results import FittedSelector, SeenTable
from skte.report._sampled_voxels_display import ProbeDisplay, SampledVoxelsDisplay

_LONG = 8  # characters from which text keeps a width of its own on narrow screens
_NAME_WIDTH = 30  # digits that fit beside each other in the first column, on wide screens


#: Sections of the page of a fitted selector, in their order.
TITLES = {
    "ranking": "Ranking",
    "reading": "How to read this",
    "voxels": "What was compared",
    "probe": "What the features know",
    "layers": "Layers",
    "cases": "Classes and cases",
    "warnings": "Warnings",
    "seen": "What each model saw",
    "dataset": "Dataset",
    "cost": "Cost",
    "provenance": "Provenance",
}


class Cell(NamedTuple):
    """Text of a table, and the number that sorts it."""

    text: str
    order: float
    weight: float = 0.0  # from 0 to 1, how strongly it is tinted


def number(value: float) -> str:
    """Return a number as people read it: four digits, and words where it is not finite."""
    if math.isnan(value):
        return "failed"
    if math.isinf(value):
        return "-∞ (collapsed)" if value < 0 else "∞"
    return f"{value:.4g}"


def table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str, sortable: bool = False
) -> Html:
    """Return a table that scrolls by itself where it is too wide."""
    body: list[list[Html]] = []
    longest = 0
    for row in rows:
        named, cells = False, []
        for value in row:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                shown = number(value) if isinstance(value, float) else str(value)
                order = "-1e999" if isinstance(value, float) and math.isnan(value) else repr(value)
                cells.append(element("td", shown, class_="n", data_sort=order))
            elif isinstance(value, Cell):
                order = repr(value.order).replace("inf", "1e999")
                tint = f"--tint-share:{30 * value.weight:.0f}%" if value.weight else None
                cells.append(element("td", value.text, class_="n", data_sort=order, style=tint))
            elif named or isinstance(value, Html):
                is_long = not isinstance(value, Html) and len(str(value)) > _LONG
                cells.append(element("td", value, class_="text" if is_long else None))
            else:
                cells.append(element("th", value, scope="row"))
                named, longest = True, max(longest, len(str(value)))
        body.append(cells)
    # Headings stand above their numbers.
    right = ['class="n"' in cell for cell in (body[0] if body else header)]
    heads = [
        element("th", name, scope="col", class_="n" if to_right else None)
        for name, to_right in zip(header, right, strict=True)
    ]
    whole = html_table(
        heads,
        body,
        caption,
        class_="sortable" if sortable else None,
        # Long names may break anywhere, and would then take a line for every few letters.
        style=f"--name:{min(longest, _NAME_WIDTH)}ch",
    )
    return element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def picture(figure: Any, alt: str, caption: str, *, kind: str = "svg", narrow: Any = None) -> Html:
    """Return a matplotlib figure as an image inside the page, with another for narrow windows."""
    wide = _image(figure, alt, kind, "wide" if narrow else None)
    images = [wide, _image(narrow, alt, kind, "narrow")] if narrow else [wide]
    return element("figure", images, element("figcaption", caption))


def _image(figure: Any, alt: str, kind: str, shown: str | None) -> Html:
    import matplotlib as mpl

    buffer = io.BytesIO()
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": "skte", "font.family": "sans-serif"}
    with mpl.rc_context(options), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has the font
        if kind == "svg":
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        else:
            figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    width = round(figure.get_size_inches()[0] * 96)
    source = Html(f"data:{mime};base64,{data}")
    return element("img", src=source, alt=alt, width=width, class_=shown)


def section(key: str, *children: object, title: str = "") -> Html:
    """Return a part of the page with a heading that links lead to."""
    heading = element("h2", title or TITLES[key], id=f"{key}-title")
    return element("section", heading, children, id=key, aria_labelledby=f"{key}-title")


def folded(summary: str, *children: object) -> Html:
    """Return what is shown once a reader opens it."""
    return element("details", element("summary", summary), children)


def _extractor_of(selector: FittedSelector, name: str) -> SegmentationFeatureExtractor:
    """Return the extractor as the selector set it for a model."""
    extractor: SegmentationFeatureExtractor = clone(selector.extractor_)
    extractor.set_params(entry=selector.bank_[name])
    return extractor


def voxel_section(selector: FittedSelector, shown: Sequence[int]) -> Html:
    """Return slices of some cases with the voxels that were looked at."""
    extractor = _extractor_of(selector, selector.best_name_)
    figures = []
    for i in shown:
        display = SampledVoxelsDisplay.from_case(extractor, selector.dataset_[i])
        name, across, away = display.case.case_id, "xyz"[display.axis], display.thickness
        n_class, n_all = len(display.sample.labels), len(display.sample.voxels)
        near = f"at most {away} slices away" if away else "on it"
        caption = (
            f"Case {name}: {n_class} voxels of classes and {n_all - n_class} of the whole case, of "
            f"which each slice across {across} shows those {near}."
        )
        alt = f"{len(display.slices)} slices of case {name} with sampled voxels and label outlines."
        figures.append(picture(display.figure_, alt, caption, kind="png"))
    about = (
        "All models were compared at these voxels and no others. White lines are the outlines of "
        "the labels. Slices are oriented as radiologists view them, by the images' affines."
    )
    return section("voxels", element("p", about), figures)


def probe_section(selector: FittedSelector, shown: Sequence[int]) -> Html:
    """Return what the probe predicts on the features of the first and the last model."""
    many = selector.estimators_.values()
    probe = next((clone(e) for e in many if isinstance(e, CrossCaseProbe)), None)
    if probe is None:
        return Html("")
    errors = dict(zip(selector.names_, selector.results_["error"], strict=True))
    ran = [name for name in selector.ranking_ if not errors[name]]
    figures = []
    for name in dict.fromkeys((ran[0], ran[-1])):
        extractor = _extractor_of(selector, name).set_params(taper=False)
        probe.fit(extractor.extract(selector.dataset_, CaseStore(0)))
        displays = ProbeDisplay.from_probe(probe, extractor, selector.dataset_, shown[:1])
        for display in displays:
            case = display.case.case_id
            caption = f"{name}, case {case}: score {probe.score_:.2f} over all cases."
            alt = f"Slices of case {case} with predictions of the probe on features of {name}."
            figures.append(picture(display.figure_, alt, caption, kind="png"))
    about = (
        "Voxels in the colour of the class that the cross-case probe predicts, fitted on other "
        "cases: dots are right, crosses are wrong. Above the first model, below the last."
    )
    return section("probe", element("p", about), figures)


def explanation_section(selector: FittedSelector, name: str) -> Html:
    """Return classes, cases and features of one model, extracted once more."""
    features = _extractor_of(selector, name).extract(selector.dataset_, CaseStore(0))
    many = selector.estimators_.values()
    found = next((e for e in many if isinstance(e, CCFV) and e.class_consistency), None)
    whole = all(len(s.X_case) for case in features for s in case.layers.values())
    estimator = clone(found) if found is not None else CCFV(feature_variety=whole)
    diagnosis = estimator.fit(features).diagnose()
    by_class = table(
        ["class", "layer", "mean distance between cases", "share"],
        [[str(c.label), c.layer, c.distance, f"{c.share:.0%}"] for c in diagnosis.classes],
        caption="Which class makes a layer inconsistent",
    )
    by_case = table(
        ["case", "class", "times the median distance"],
        [[c.case, str(c.label), c.ratio] for c in diagnosis.cases],
        caption="Which case lies far from the others",
        sortable=True,
    )
    distances = CaseDistanceDisplay.from_estimator(estimator)
    embedding = FeatureEmbeddingDisplay.from_features(features)
    far = f"{distances.case_ids[0]} ({distances.ratios[0]:.2f} times the median)"
    return section(
        "cases",
        element(
            "p",
            "How similar each class looks from case to case to the model ",
            element("strong", name),
            f", by CC-FV. The case farthest from the others is {far}. A case well above the others "
            "may have a wrong label, or an image from another scanner: look at it.",
        ),
        picture(
            distances.figure_,
            f"Distances between cases; {far} is farthest.",
            "Distance between every two cases over the median, averaged over layers and classes.",
        ),
        picture(
            embedding.figure_,
            "Features of one class in the plane, by case.",
            "Voxels of one class, by case. Consistent features mix the cases.",
        ),
        folded("Distances by class and layer", by_class),
        folded("Distances by case and class", by_case),
    )


def dataset_section(selector: FittedSelector) -> Html:
    """Return what the dataset holds, and what may be wrong with it."""
    report = inspect_dataset(selector.dataset_)
    classes = [
        [k, report.label_names.get(k, ""), n, report.n_cases_with(k)]
        for k, n in report.n_voxels().items()
    ]
    cases = [
        [
            case.case_id,
            case.n_channels,
            Html(" x ".join(map(str, case.size))),
            Html(" x ".join(f"{s:.3g}" for s in case.spacing_mm)),
            sum(n for k, n in case.n_voxels.items() if k != 0),
        ]
        for case in report.cases
    ]
    notes = [element("p", str(note), class_="warn") for note in report.notes]
    header = ["case", "channels", "size (voxels)", "voxel (mm)", "labelled voxels"]
    return section(
        "dataset",
        element("p", f"{report.n_cases} cases."),
        notes,
        table(["id", "class", "voxels", "cases"], classes, caption="Classes"),
        folded("Cases", table(header, cases, caption="Cases", sortable=True)),
    )


def seen_section(selector: FittedSelector) -> Html:
    """Return what each model saw, and where it comes from."""
    seen = SeenTable.from_selector(selector)
    origins = [
        [entry.name, "; ".join(f"{k}: {v}" for k, v in entry.provenance.items())]
        for entry in selector.bank_
    ]
    described = table(["model", "provenance"], origins, caption="As the bank describes them")
    return section(
        "seen",
        table(seen.header, seen.rows, caption="Models, best first", sortable=True),
        folded("Where the models come from", described),
    )


def provenance_section(
    selector: FittedSelector, command: str | None, key: str = "provenance", title: str = ""
) -> Html:
    """Return versions, settings, seeds and digests: what reproducing the ranking needs."""
    facts = dict(SeenTable.from_selector(selector).facts)
    if command:
        facts["command"] = command
    prints = [case_fingerprint(subject) for subject in selector.dataset_]
    facts["dataset digest"] = sha256("".join(prints).encode()).hexdigest()
    digests = [
        [entry.name, element("code", entry_digest(entry) or f"none: {digest_problem(entry)}")]
        for entry in selector.bank_
    ]
    listed = [[element("dt", key), element("dd", value)] for key, value in facts.items()]
    header = ["model", "SHA-256 of all that decides its features"]
    return section(
        key,
        element("dl", listed, class_="facts"),
        folded("Digests of the models", table(header, digests, caption="Digests")),
        title=title,
    )
