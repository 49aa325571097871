"""``skte rank``: a bank, a dataset, a table."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rich
from sklearn.callback import ProgressBar
from sklearn.exceptions import FitFailedWarning

from skte import __version__, estimators
from skte._files import write_text_atomically
from skte._table import format_table
from skte.estimators import TransferabilityEstimator
from skte.exceptions import SkteError
from skte.extraction import SegmentationFeatureExtractor
from skte.selection import ModelBankSelector

__all__ = ["ESTIMATORS", "add_parser"]

#: What ``--estimator`` accepts: every exported estimator, in lower case.
ESTIMATORS: dict[str, type[TransferabilityEstimator]] = {
    name.lower(): getattr(estimators, name)
    for name in estimators.__all__
    if name != "TransferabilityEstimator"
}


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte rank`` to the command line."""
    parser = commands.add_parser(
        "rank", parents=[common], help="rank the models of a bank for a dataset"
    )
    parser.set_defaults(run=_run)
    parser.add_argument("--bank", required=True, metavar="FILE", help="manifest of the models")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the target cases")
    parser.add_argument(
        "--estimator",
        action="append",
        choices=list(ESTIMATORS),
        help="may be repeated: one extraction serves all, the first one ranks (default: ccfv)",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="write the table as CSV, or as JSON if FILE ends in .json"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--n-jobs", type=int, metavar="N", help="models at a time (default: 1)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampled voxels")
    parser.add_argument(
        "--error-score",
        choices=["nan", "raise"],
        default="nan",
        help="a model that fails is listed last (nan, the default) or ends the run (raise)",
    )
    parser.add_argument(
        "--window", type=int, nargs="+", metavar="N", help="edges of the window in voxels"
    )
    parser.add_argument(
        "--layers", nargs="+", metavar="NAME", help="modules to read, coarse to fine"
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="windows in a forward pass"
    )


def _run(args: argparse.Namespace) -> int:
    if args.out and not Path(args.out).absolute().parent.is_dir():
        raise SkteError(f"--out {args.out}: its folder does not exist; create it first.")
    selector = _fit(args)
    models = list(_models(selector))
    result = {
        "skte": __version__,
        "bank": args.bank,
        "data": args.data,
        "estimators": list(selector.estimator),
        "seed": args.seed,
        "models": models,
    }
    if args.out:
        as_json = Path(args.out).suffix == ".json"
        write_text_atomically(args.out, _to_json(result) if as_json else _to_csv(models))
    print(_to_json(result) if args.json else _to_table(models, list(selector.estimator)))
    failed = [model for model in models if model["error"]]
    for model in failed:
        print(f"skte: failed: {model['name']}: {model['error']}", file=sys.stderr)
    return 1 if failed else 0


def _fit(args: argparse.Namespace) -> ModelBankSelector:
    names = list(dict.fromkeys(args.estimator or ["ccfv"]))
    window = args.window[0] if args.window and len(args.window) == 1 else args.window
    selector = ModelBankSelector(
        {name: ESTIMATORS[name]() for name in names},
        extractor=SegmentationFeatureExtractor(
            layers=args.layers or "auto", window_size=window, batch_size=args.batch_size
        ),
        n_jobs=args.n_jobs,
        device=args.device,
        error_score="raise" if args.error_score == "raise" else np.nan,
        random_state=args.seed,
    )
    if sys.stderr.isatty() and not (args.quiet or args.verbose):
        rich.reconfigure(stderr=True)  # results alone belong on stdout
        selector.set_callbacks(ProgressBar())
    with warnings.catch_warnings():
        # Failures are listed after the table.
        warnings.simplefilter("ignore", FitFailedWarning)
        return selector.fit(args.bank, args.data)


def _models(selector: ModelBankSelector) -> Iterator[dict[str, Any]]:
    """One flat record a model, best first."""
    results = selector.results_
    index = {name: i for i, name in enumerate(selector.names_)}
    first = ["rank", "name", "score"]
    keys = [*first, *(key for key in results if key not in first)]
    for name in selector.ranking_:
        yield {key: _plain(results[key][index[name]]) for key in keys}


def _plain(value: Any) -> Any:
    """Python's own types, with -inf and NaN as words that JSON can hold."""
    if isinstance(value, (np.ndarray, tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _to_json(result: dict[str, Any]) -> str:
    return json.dumps(result, indent=2, allow_nan=False) + "\n"


def _to_csv(models: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(models[0]), lineterminator="\n")
    writer.writeheader()
    for model in models:
        writer.writerow(
            {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in model.items()}
        )
    return text.getvalue()


def _to_table(models: list[dict[str, Any]], names: list[str]) -> str:
    rows = [
        [m["rank"], m["name"], *(_number(m[f"score_{name}"]) for name in names)] for m in models
    ]
    return format_table(["rank", "model", *names], rows)


def _number(value: Any) -> float:
    return float(value)
