"""Sections of the page that look at cases and at a model once more."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from sklearn.base import clone

from skte._table import Html, element
from skte.bank import digest_problem, entry_digest
from skte.datasets import case_fingerprint, inspect_dataset
from skte.estimators import CCFV, CrossCaseProbe
from skte.extraction import CaseStore, SegmentationFeatureExtractor
from skte.report._feature_displays import CaseDistanceDisplay, FeatureEmbeddingDisplay
from skte.report._html import picture, section, table
from skte.report._results import FittedSelector
from skte.report._sampled_voxels_display import ProbeDisplay, SampledVoxelsDisplay
from skte.report._seen import SeenTable


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
        name = display.case.case_id
        n_class, n_all = len(display.sample.labels), len(display.sample.voxels)
        across = "xyz"[display.axis]
        away = display.thickness
        near = f"at most {away} slices away" if away else "on it"
        caption = (
            f"Case {name}: {n_class} voxels of classes and {n_all - n_class} of the whole case, of "
            f"which each slice across {across} shows those {near}."
        )
        alt = f"{len(display.slices)} slices of case {name} with sampled voxels and label outlines."
        figures.append(picture(display.figure_, alt, caption, kind="png"))
    return section(
        "voxels",
        "What was compared",
        element(
            "p",
            "All models were compared at these voxels and no others. White lines are the outlines "
            "of the labels. Slices are oriented as radiologists view them, by the images' "
            "affines.",
        ),
        figures,
    )


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
    return section(
        "probe",
        "What the features know",
        element(
            "p",
            "Voxels in the colour of the class that the cross-case probe predicts, fitted on other "
            "cases: dots are right, crosses are wrong. Above the first model, below the last.",
        ),
        figures,
    )


def explanation_section(selector: FittedSelector, name: str) -> Html:
    """Return classes, cases and features of one model, extracted once more."""
    features = _extractor_of(selector, name).extract(selector.dataset_, CaseStore(0))
    many = selector.estimators_.values()
    found = next((e for e in many if isinstance(e, CCFV) and e.class_consistency), None)
    whole = all(len(s.X_case) for case in features for s in case.layers.values())
    estimator = clone(found) if found is not None else CCFV(feature_variety=whole)
    diagnosis = estimator.fit(features).diagnose()
    classes = [[str(c.label), c.layer, c.distance, f"{c.share:.0%}"] for c in diagnosis.classes]
    cases = [[c.case, str(c.label), c.ratio] for c in diagnosis.cases]
    distances = CaseDistanceDisplay.from_estimator(estimator)
    embedding = FeatureEmbeddingDisplay.from_features(features)
    far = f"{distances.case_ids[0]} ({distances.ratios[0]:.2f} times the median)"
    return section(
        "cases",
        "Classes and cases",
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
        element(
            "details",
            element("summary", "Distances by class and layer"),
            table(
                ["class", "layer", "mean distance between cases", "share"],
                classes,
                caption="Which class makes a layer inconsistent",
            ),
        ),
        element(
            "details",
            element("summary", "Distances by case and class"),
            table(
                ["case", "class", "times the median distance"],
                cases,
                caption="Which case lies far from the others",
                sortable=True,
            ),
        ),
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
        "Dataset",
        element("p", f"{report.n_cases} cases."),
        notes,
        table(["id", "class", "voxels", "cases"], classes, caption="Classes"),
        element(
            "details",
            element("summary", "Cases"),
            table(header, cases, caption="Cases", sortable=True),
        ),
    )


def seen_section(selector: FittedSelector) -> Html:
    """Return what each model saw, and where it comes from."""
    seen = SeenTable.from_selector(selector)
    origins = [
        [entry.name, "; ".join(f"{k}: {v}" for k, v in entry.provenance.items())]
        for entry in selector.bank_
    ]
    return section(
        "seen",
        "What each model saw",
        table(seen.header, seen.rows, caption="Models, best first", sortable=True),
        element(
            "details",
            element("summary", "Where the models come from"),
            table(["model", "provenance"], origins, caption="As the bank describes them"),
        ),
    )


def provenance_section(
    selector: FittedSelector,
    command: str | None,
    key: str = "provenance",
    title: str = "Provenance",
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
    return section(
        key,
        title,
        element("dl", listed, class_="facts"),
        element(
            "details",
            element("summary", "Digests of the models"),
            table(
                ["model", "SHA-256 of all that decides its features"], digests, caption="Digests"
            ),
        ),
    )
