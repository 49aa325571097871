"""A selector's results: checked, as rows, and as a file."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skte._files import write_text_atomically
from skte._text import clean_cell
from skte.selection import DatasetRanks, HalvingModelBankSelector, ModelBankSelector, Reference

FittedSelector = ModelBankSelector | HalvingModelBankSelector


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
        a rank, and every row says whether it is a ``reference``. Of several datasets they are
        known.

    Returns
    -------
    list of dict
        One per model, sorted by ``rank``, which is None for models that failed, as are facts that
        are not known; other values are str, int, float or list. Of several datasets, one per
        dataset and model, with ``dataset`` and ``mean_rank``.
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
    results : mapping of str to sequence, or DatasetRanks
        ``selector.results_``, or what `rank_datasets` returned: the rows of `results_rows`.
    path : path-like
        Ends in ``.csv`` or ``.json``. An existing file is replaced in one step.
    references : sequence of Reference, default=()
        ``selector.reference_``, for rows of untrained networks as of `results_rows`.

    Raises
    ------
    ValueError
        If `path` ends in anything else, or names or ranks are missing.

    Notes
    -----
    A model that failed has no rank: the cell is empty in CSV, null in JSON. In CSV, lists are
    joined by semicolons, and text that a spreadsheet would take for a
    formula gets a leading apostrophe, which ``skte evaluate`` removes. In JSON,
    text is exact; ``-inf`` and NaN are the strings "-inf" and "nan": JSON has no such numbers.

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
        text = json.dumps([_jsonable(row) for row in rows], indent=1, allow_nan=False) + "\n"
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


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_jsonable(v) for v in value]
    return value


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
