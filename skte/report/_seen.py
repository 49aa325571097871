"""What each model saw, and what a ranking rests on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from skte._table import format_html_table, format_table
from skte._text import clean_lines
from skte.bank import BankEntry, entry_digest
from skte.datasets import CaseList
from skte.report._results import FittedSelector, results_of
from skte.selection import ModelBankSelector

_PACKAGES = ("skte", "torch", "torchio", "scikit-learn", "numpy", "scipy")
_DIGITS = 12  # of a digest, enough to tell models apart
_IMAGE_FOLDERS = ("images", "imagestr")
_MOST_CASES = 10


class SeenTable:
    """What each model of a fitted selector saw: a table in terminal, notebook and report.

    Parameters
    ----------
    header : list of str
        Names of the columns.
    rows : list of list
        One per model, best first.
    facts : dict of str to str
        Dataset, cases, date, seed, estimators, extraction and versions.

    Examples
    --------
    >>> from skte import LogME, ModelBankSelector
    >>> from skte.datasets import make_phantoms
    >>> from skte.demo import small_unet
    >>> from skte.report import SeenTable
    >>> cases = make_phantoms(2, size=(16, 16, 16))
    >>> selector = ModelBankSelector(LogME(), reference=False)
    >>> selector = selector.fit({"a": small_unet(widths=(4, 8))}, cases)
    >>> SeenTable.from_selector(selector).facts["cases"]
    '2: ellipsoids_000, ellipsoids_001'
    """

    def __init__(self, header: list[str], rows: list[list[str]], facts: dict[str, str]) -> None:
        self.header = header
        self.rows = rows
        self.facts = facts

    @classmethod
    def from_selector(cls, selector: FittedSelector) -> Self:
        """Collect what a fitted selector's models saw.

        Parameters
        ----------
        selector : ModelBankSelector or HalvingModelBankSelector
            Fitted.

        Returns
        -------
        SeenTable
            Paths are relative to the folder that all weights lie in.
        """
        results = results_of(selector)
        files = [Path(e.weights) for e in selector.bank_ if e.weights is not None]
        root = Path(os.path.commonpath([file.parent for file in files])) if files else Path()
        place = {name: i for i, name in enumerate(results["name"])}
        rows = []
        for name in selector.ranking_:
            entry, i = selector.bank_[name], place[name]
            rows.append([
                name,
                _weights(entry, root),
                (entry_digest(entry) or "none")[:_DIGITS],
                ", ".join(entry.step_names) or "none",
                _window(results["window"][i]),
                _layers(results["layers"][i]),
                f"{results['n_axes'][i]}-D" if results["n_axes"][i] else "",
                results["device"][i],
            ])  # fmt: skip
        header = ["model", "weights", "digest", "preprocessing", "window", "layers", "axes"]
        return cls([*header, "device"], rows, _facts(selector))

    def __repr__(self) -> str:
        facts = "\n".join(f"{key}: {value}" for key, value in self.facts.items())
        return clean_lines(f"{format_table(self.header, self.rows)}\n\n{facts}")

    def _repr_html_(self) -> str:
        facts = format_html_table(["", ""], self.facts.items(), caption="What it rests on")
        return f"{format_html_table(self.header, self.rows, caption='What each model saw')}{facts}"


def _weights(entry: BankEntry, root: Path) -> str:
    if entry.weights is not None:
        return str(Path(entry.weights).relative_to(root))
    return "random" if entry.is_untrained else "with the network"


def _window(window: Any) -> str:
    return "fitted to each volume" if window is None else " x ".join(map(str, window))


def _layers(layers: Any) -> str:
    if len(layers) <= 2:
        return ", ".join(layers)
    return f"{layers[0]} ... {layers[-1]} ({len(layers)})"


def _facts(selector: FittedSelector) -> dict[str, str]:
    """List what reproducing a ranking needs, beside its models."""
    cases = [str(subject["case_id"]) for subject in selector.dataset_]
    more = "" if len(cases) <= _MOST_CASES else ", ..."
    estimators = selector.estimators_.items()
    extraction = {"entry": None, "cache": None}
    extractor = type(selector.extractor_)(**{**selector.extractor_.get_params(), **extraction})
    return {
        "dataset": _dataset_name(selector.dataset_),
        "cases": f"{len(cases)}: {', '.join(cases[:_MOST_CASES])}{more}",
        "date": selector.date_,
        "seed": str(selector.random_state_),
        **{f"estimator {key}".strip(): _one_line(one) for key, one in estimators},
        "extraction": _one_line(extractor),
        **_how_sure(selector),
        "versions": ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
        + f", Python {platform.python_version()}",
    }


def _how_sure(selector: FittedSelector) -> dict[str, str]:
    """Name the settings of the confidence, or of a race and the rungs that it took."""
    level = selector.confidence_level
    if isinstance(selector, ModelBankSelector):
        return {"confidence": "not computed" if not level else f"{level:g}, {selector.resampling}"}
    rungs = zip(selector.n_candidates_, selector.n_resources_, strict=True)
    shown = ", ".join(f"{n_models} models on {n_cases} cases" for n_models, n_cases in rungs)
    return {"race": f"{selector.elimination}, {level:g}: {shown}"}


def _dataset_name(cases: CaseList) -> str:
    """Name the folder that all images lie in, without its path."""
    paths = [image.path for case in cases for image in case.get_images(intensity_only=True)]
    files = [Path(one) for path in paths for one in (path if isinstance(path, list) else [path])
             if one is not None]  # fmt: skip
    if not files:
        return "in memory"
    folder = Path(os.path.commonpath([file.absolute().parent for file in files]))
    return folder.parent.name if folder.name.lower() in _IMAGE_FOLDERS else folder.name


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _one_line(estimator: Any) -> str:
    return " ".join(repr(estimator).split())
