"""What a fitted selector holds: its results as rows and files, and what each model saw."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skte import __version__
from skte._files import write_text_atomically
from skte._table import format_html_table, format_table
from skte._text import clean_cell, clean_lines
from skte.bank import entry_digest
from skte.datasets import CaseList
from skte.selection import DatasetRanks, HalvingModelBankSelector, ModelBankSelector, Reference

FittedSelector = ModelBankSelector | HalvingModelBankSelector

_PACKAGES = ("torch", "torchio", "scikit-learn", "numpy", "scipy")
_DIGITS = 12  # of a digest, enough to tell models apart
_IMAGE_FOLDERS = ("images", "imagestr")
_MOST_CASES = 10
# Unknown where a model failed before, or its head has other classes.
_FACTS = ("n_parameters", "width", "n_axes", "zero_shot", "untrained_twin")


def results_rows(
    results: Mapping[str, Any] | DatasetRanks, references: Sequence[Reference] = ()
) -> list[dict[str, Any]]:
    """Turn a table of equal-length columns into plain rows, best first.

    Parameters
    ----------
    results : mapping of str to sequence, or DatasetRanks
        ``selector.results_``, or what `rank_datasets` returned.
    references : sequence of Reference, default=()
        ``selector.reference_``: untrained networks get rows below those of the models, without
        a rank, and every row says whether it is a ``reference``. `DatasetRanks` know their own.

    Returns
    -------
    list of dict
        One per model, by ``rank``, which is None for models that failed, as are facts that are not
        known; other values are str, int, float or list. Of several datasets, one per dataset and
        model, with ``dataset`` and ``mean_rank``.
    """
    if isinstance(results, DatasetRanks):
        return _rows_by_dataset(results)
    rows = [
        {
            key: _place(column[i]) if key.startswith(("rank", "choice")) else _plain(column[i])
            for key, column in results.items()
        }
        | {key: None for key in _FACTS if key in results and not _is_known(key, results[key][i])}
        for i in range(len(results["name"]))
    ]
    rows = sorted(rows, key=lambda row: math.inf if row["rank"] is None else row["rank"])
    if not references:
        return rows
    return [{**row, "reference": False} for row in rows] + _reference_rows(rows[0], references)


def _rows_by_dataset(found: DatasetRanks) -> list[dict[str, Any]]:
    """Rows of all datasets, with the same columns, also where no model has a rank."""
    means = dict(zip(found.names, found.mean_ranks.tolist(), strict=True))
    rows: list[dict[str, Any]] = []
    for dataset, one in found.selectors.items():
        own = results_rows(one.results_, one.reference_)
        rows += [
            {"dataset": dataset, "name": r["name"], "mean_rank": means.get(r["name"]), **r}
            for r in own
        ]
    for dataset, reason in found.failed.items():
        nothing = {"dataset": dataset, "score": math.nan, "error": reason}
        rows += [{**nothing, "name": name, "mean_rank": mean} for name, mean in means.items()]
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows]


def _reference_rows(
    model: Mapping[str, Any], references: Sequence[Reference]
) -> list[dict[str, Any]]:
    """Rows of untrained networks, with the columns that a model's row has."""
    found: dict[str, dict[str, Any]] = {}
    first = references[0].estimator
    for one in (one for one in references if one.name):
        nothing = dict.fromkeys(model)
        new = {**nothing, "name": one.name, "untrained": True, "reference": True}
        row = found.setdefault(one.name, new)
        if one.estimator == first:
            row["score"], row["error"] = one.score, one.problem
        if f"score_{one.estimator}" in row:
            row[f"score_{one.estimator}"] = one.score
    return list(found.values())


def write_results(
    results: Mapping[str, Any] | DatasetRanks,
    path: str | os.PathLike[str],
    references: Sequence[Reference] = (),
) -> None:
    """Write results as CSV or JSON, by the ending of the file's name.

    Parameters
    ----------
    results, references
        As for `results_rows`, whose rows are written.
    path : path-like
        Ends in ``.csv`` or ``.json``. An existing file is replaced in one step.

    Raises
    ------
    ValueError
        If `path` ends in anything else, or names or ranks are missing.

    Notes
    -----
    A model that failed has no rank: the cell is empty in CSV, null in JSON. In CSV, lists are
    joined by semicolons, and text that a spreadsheet would take for a formula gets a leading
    apostrophe, which ``skte evaluate`` removes. In JSON, ``-inf`` and NaN are "-inf" and "nan".

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from skte.report import write_results
    >>> with TemporaryDirectory() as folder:
    ...     write_results({"name": ["a"], "rank": [1], "score": [-2.5]}, f"{folder}/r.csv")
    ...     print(Path(folder, "r.csv").read_text("utf-8"))
    name,rank,score
    a,1,-2.5
    <BLANKLINE>
    """
    columns: Sequence[str] = ()
    if not isinstance(results, DatasetRanks):
        check_columns(results, ["name", "rank"])
        columns = list(results)
    suffix = Path(path).suffix.lower()
    rows = results_rows(results, references)
    if suffix == ".json":
        text = json.dumps(finite(rows), indent=1) + "\n"
    elif suffix == ".csv":
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([clean_cell(name) for name in (rows[0] if rows else columns)])
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
        text = buffer.getvalue()
    else:
        raise ValueError(f"{path}: results are a .csv or .json file, not {suffix!r}.")
    write_text_atomically(path, text)


def _is_known(key: str, value: float) -> bool:
    return bool(value) if key in ("n_parameters", "width", "n_axes") else not math.isnan(value)


def _place(value: Any) -> int | None:
    """Return a rank, which a model that failed lacks, or a place on the short list."""
    return None if value is None or math.isnan(value) else int(value)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.ndarray, tuple, list)):
        return [_plain(v) for v in value]
    return value


def _cell(value: Any) -> str:
    """One cell; a list of numbers begins no formula, whatever its first sign."""
    if not isinstance(value, list):
        return "" if value is None else clean_cell(value)
    joined = ";".join(map(str, value))
    return clean_cell(joined) if any(isinstance(v, str) for v in value) else joined


def finite(rows: list[dict[str, Any]]) -> Any:
    """Return rows as JSON has them, with words for NaN and infinity."""
    return json.loads(json.dumps(rows), parse_constant=lambda text: str(float(text)))


def results_of(selector: FittedSelector) -> Mapping[str, Any]:
    """Return the results of a fitted selector."""
    if not isinstance(selector, FittedSelector):
        raise TypeError(f"Give a fitted ModelBankSelector, got {type(selector).__name__}.")
    check_is_fitted(selector, "results_")
    return selector.results_


def check_columns(results: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Refuse a table that lacks columns."""
    if not hasattr(results, "keys"):
        raise TypeError(
            "results map the names of columns to values, as selector.results_ does; got "
            f"{type(results).__name__}."
        )
    missing = [key for key in needed if key not in results]
    if missing:
        raise ValueError(f"results lack {missing}; they have {sorted(results)}.")


@dataclass(eq=False, repr=False)
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

    header: list[str]
    rows: list[list[str]]
    facts: dict[str, str]

    @classmethod
    def from_selector(cls, selector: FittedSelector) -> Self:
        """Collect what the models of a fitted selector saw.

        Parameters
        ----------
        selector : ModelBankSelector or HalvingModelBankSelector
            Fitted. Paths are shown relative to the folder that all weights lie in.
        """
        results = results_of(selector)
        files = [Path(e.weights) for e in selector.bank_ if e.weights is not None]
        root = Path(os.path.commonpath([file.parent for file in files])) if files else Path()
        place = {name: i for i, name in enumerate(results["name"])}
        rows = []
        for name in selector.ranking_:
            entry, i = selector.bank_[name], place[name]
            own = "random" if entry.is_untrained else "with the network"
            window, layers = results["window"][i], results["layers"][i]
            rows.append([
                name,
                own if entry.weights is None else str(Path(entry.weights).relative_to(root)),
                (entry_digest(entry) or "none")[:_DIGITS],
                ", ".join(entry.step_names) or "none",
                "fitted to each volume" if window is None else " x ".join(map(str, window)),
                ", ".join(layers) if len(layers) <= 2
                else f"{layers[0]} ... {layers[-1]} ({len(layers)})",
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


def _facts(selector: FittedSelector) -> dict[str, str]:
    """List what reproducing a ranking needs, beside its models."""
    cases = [str(subject["case_id"]) for subject in selector.dataset_]
    more = "" if len(cases) <= _MOST_CASES else ", ..."
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
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
        "versions": f"skte {__version__}, {versions}, Python {platform.python_version()}",
    }


def _how_sure(selector: FittedSelector) -> dict[str, str]:
    """Name the settings of the confidence, or of a race and the rungs that it took."""
    level = selector.confidence_level
    if isinstance(selector, ModelBankSelector):
        return {"confidence": "not computed" if not level else f"{level:g}"}
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


def _one_line(estimator: Any) -> str:
    return " ".join(repr(estimator).split())
