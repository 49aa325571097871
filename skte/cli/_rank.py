"""``skte rank``: a bank, a dataset, a table."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skte._files import check_writable
from skte._registry import ESTIMATORS, LAYER_SETS, RECOMMENDED, with_plugins
from skte._text import complain, did_you_mean, say, say_json
from skte.cli._options import (
    add_command,
    add_data_options,
    add_trusted_option,
    bank_options,
    count,
    for_shell,
    jobs,
    load_data,
    open_bank,
    seconds,
    seed,
    share,
    tell_problems,
)
from skte.exceptions import SkteError

if TYPE_CHECKING:
    from skte.estimators import TransferabilityEstimator
    from skte.selection import DatasetRanks, HalvingModelBankSelector, ModelBankSelector


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte rank`` to the command line."""
    example = "rank --bank bank.yaml --data Task04_Hippocampus --confidence 0.9 --out ranking.json"
    text = "rank the models of a bank for a dataset"
    parser = add_command(commands, common, _run, "rank", text, example)
    add = parser.add_argument
    add("--bank", required=True, metavar="PATH", help="manifest of the models, or their folder")
    add_trusted_option(parser)
    add(
        "--data",
        required=True,
        action="append",
        metavar="DATA",
        help="folder or CSV of the target cases; repeated, models are ranked on each dataset, and "
        "one table shows the ranks",
    )
    add_data_options(parser)
    known = estimator_names()
    add(
        "--estimator",
        action="append",
        type=_estimators,
        metavar="NAME",
        help=f"one or several of {', '.join(known)}, or package.module:Class of your own, "
        "which is imported; by commas or repeated: one extraction serves all, the first ranks "
        f"(default: {', '.join(RECOMMENDED)})",
    )
    add(
        "--confidence",
        type=share,
        metavar="LEVEL",
        help="resample the cases and report which models they cannot tell apart at this level, "
        "for example 0.9",
    )
    add(
        "--race",
        action="store_true",
        help="run all models on a few cases and only the contenders on more: finds the first of "
        "the table in less time",
    )
    add("--no-reference", action="store_true", help="score no untrained networks to compare with")
    add("--out", metavar="FILE", help="write the table as CSV, or as JSON if FILE ends in .json")
    add("--report", metavar="FILE", help="write an HTML page with plots to FILE.html")
    add("--json", action="store_true", help="print JSON instead of the table")
    add("--n-jobs", type=jobs, metavar="N", help="models at a time; -1: one per core (default: 1)")
    add("--timeout", type=seconds, metavar="TIME", help="fail models that take longer (90s, 2h)")
    add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    _add_extraction_options(parser.add_argument_group("what is extracted"))


def _add_extraction_options(parser: argparse._ArgumentGroup) -> None:
    add = parser.add_argument
    add("--seed", type=seed, default=0, metavar="N", help="seed of the sampled voxels")
    add("--window", type=count, nargs="+", metavar="N", help="edges of the window in voxels")
    add(
        "--layers",
        nargs="+",
        metavar="NAME",
        help=f"modules to read, coarse to fine, or one of auto, {', '.join(LAYER_SETS)}",
    )
    add("--batch-size", type=count, default=1, metavar="N", help="windows in a forward pass")
    add("--cache", metavar="DIR", help="keep features in DIR: nothing runs twice (see skte cache)")
    add(
        "--samples",
        choices=["all", "roi", "foreground"],
        help="sample voxels everywhere, in and around the labelled structures (the default where "
        "estimators need no others), or in them only",
    )


def _run(args: argparse.Namespace) -> int:
    from skte.extraction import resolve_device
    from skte.report import SeenTable, finite, results_rows, write_report, write_results
    from skte.selection import DatasetRanks

    if args.race and args.confidence:
        raise SkteError(
            "--race drops models before they have seen all cases, and --confidence compares all "
            "models on all cases: leave one of them out."
        )
    if args.out:
        _check_out(Path(args.out), "--out", (".csv", ".json"))
    if args.report:
        if find_spec("matplotlib") is None:
            raise SkteError("--report needs matplotlib: pip install 'skte[plot]'.")
        _check_out(Path(args.report), "--report", (".html",))
    resolve_device(args.device)  # once, not as the failure of every model
    with _stdout_for_results():
        found, problems = _fit(args)
    ranking: Any = found
    results: Any = found
    references: list[Any] = []
    selectors: dict[str, Any] = {"": found}
    lost: dict[str, str] = {}  # datasets as a whole, and why
    if isinstance(found, DatasetRanks):
        selectors, lost = found.selectors, found.failed
    else:
        ranking, results, references = found.ranking_, found.results_, found.reference_
    for one in selectors.values():  # terminal and report name this bank
        step = one.answer_.next_step.replace("--bank BANK", bank_options(args))
        one.ranking_.answer = one.answer_ = replace(one.answer_, next_step=step)
    rows = results_rows(results, references)
    try:
        if args.json:
            say_json(finite(rows))
            for sentence in () if args.quiet else ranking.answer.above:
                complain("answer", sentence)
        else:
            say(repr(ranking))
            for name, selector in selectors.items() if args.verbose else ():
                say(f"\n{name}\n{selector.ranking_!r}" if name else "")
                say(SeenTable.from_selector(selector))
    finally:  # neither a closed pipe nor a full disk costs both
        if args.out:
            write_results(results, args.out, references)
        if args.report:
            write_report(found, args.report, command=shlex.join(["skte", *args.argv]))
    failed = [row for row in rows if row["error"] and not row.get("reference")]
    own = [row for row in failed if row.get("dataset") not in lost]
    reasons = [*_by_reason(own).items(), *((reason, [name]) for name, reason in lost.items())]
    for reason, names in reasons:
        complain("failed", f"{', '.join(names)}: {for_shell(reason)}")
    # Reported in spite of --quiet, because the table looks complete.
    return max(tell_problems(problems), 1 if failed else 0)


def _by_reason(failed: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Names of models by what they failed of; what many have in common is said once."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in failed:
        name, reason = row["name"], row["error"]
        for word in ("Entry", "Model"):
            reason = reason.replace(f"{word} {name!r}: ", "")
        label = f"{row['dataset']}: {name}" if "dataset" in row else name
        found.setdefault(reason.replace(repr(name), "each"), []).append((label, reason))
    return {
        shared if len(group) > 1 else group[0][1]: [name for name, _ in group]
        for shared, group in found.items()
    }


def _check_out(path: Path, option: str, endings: tuple[str, ...]) -> None:
    """Raise before the work for a path that would fail after it."""
    if not path.absolute().parent.is_dir():
        raise SkteError(f"{option} {path}: its folder does not exist; create it first.")
    if path.suffix.lower() not in endings:
        raise SkteError(f"{option} {path}: the name must end in {' or '.join(endings)}.")
    if path.is_dir():
        raise SkteError(f"{option} {path} is a folder; name a file in it.")
    try:  # the way it will be written
        check_writable(path)
    except OSError as error:
        raise SkteError(f"{option} {path} cannot be written: {error}.") from error


class Progress:
    """One line on stderr: model, case n of N, and the time left, which a race does not know."""

    def __init__(
        self, names: Sequence[str], *, shown: bool, is_race: bool = False, n_datasets: int = 1
    ) -> None:
        self.names = tuple(names)
        self.shown = shown
        self.is_race = is_race
        self.n_datasets = n_datasets
        self._dataset = 1
        self.done: dict[str, None] = {}
        self._begun = time.monotonic()
        self._width = 0
        self._last = ("", 0)

    def __call__(self, model: str, n_done: int, n_cases: int) -> None:
        """Take note of a case that is done."""
        is_new, self._last = (model, n_done) != self._last, (model, n_done)
        if is_new and model in self.done and not self.is_race:  # on the next dataset
            self.done, self._begun, self._dataset = {}, time.monotonic(), self._dataset + 1
        before = len(self.done)
        if model in self.names and n_done == n_cases:
            self.done[model] = None
        if not (self.shown and is_new):
            return
        what = f"model {min(before + 1, len(self.names))} of {len(self.names)}"
        share = min(1.0, (before + n_done / n_cases) / len(self.names))
        left = (time.monotonic() - self._begun) * (1 - share) / share
        if self.is_race:
            what, left = f"race over {n_cases} cases", 0.0
        if model not in self.names:
            what, left = "untrained reference", 0.0
        if self.n_datasets > 1 and not self.is_race:
            what = f"dataset {self._dataset} of {self.n_datasets}, {what}"
        self._write(f"{what}, {model}: case {n_done} of {n_cases}{_spoken(left)}")

    def close(self) -> None:
        """Remove the line."""
        if self._width:
            self._write("")
            say(begin="\r", end="", file=sys.stderr, flush=True)

    def _write(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]
        say(text.ljust(self._width), begin="\r", end="", file=sys.stderr, flush=True)
        self._width = len(text)


def _spoken(seconds: float) -> str:
    """Time left, as people say it; nothing where it is short."""
    if seconds < 5:
        return ""
    return f", {seconds:.0f} s left" if seconds < 100 else f", {seconds / 60:.0f} min left"


@contextmanager
def _stdout_for_results() -> Iterator[None]:
    """Send what models print to stderr, also from worker processes and C code."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)  # workers inherit it
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def estimator_names() -> tuple[str, ...]:
    """Return what ``--estimator`` accepts: every estimator by its name in lower case."""
    return tuple(map(str.lower, with_plugins(ESTIMATORS, "skte.estimators")))


def _estimators(text: str) -> list[tuple[str, TransferabilityEstimator | None]]:
    """Read names of estimators; those that are classes are made at once, to see that they can."""
    return [_estimator(name) for name in text.split(",")]


def _estimator(text: str) -> tuple[str, TransferabilityEstimator | None]:
    if text in (known := estimator_names()):
        return text, None
    module, colon, name = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither an estimator nor package.module:Class of one; "
            f"{did_you_mean(text, known)}"
        )
    from skte.estimators import TransferabilityEstimator

    # Named on the user's own command line, as python -m is; no file can name one.
    try:
        found = getattr(import_module(module), name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be made: {error}") from error
    if not isinstance(found, TransferabilityEstimator):
        raise argparse.ArgumentTypeError(
            f"{text} is not an estimator: derive it from skte.TransferabilityEstimator"
        )
    return name, found


def _made(args: argparse.Namespace) -> dict[str, TransferabilityEstimator]:
    """Return the estimators that the options name, or else those that are recommended."""
    from skte.estimators import all_estimators, recommended_estimators

    if not args.estimator:
        return recommended_estimators()
    known = all_estimators()
    named = [pair for pairs in args.estimator for pair in pairs]
    repeated = [name for name, n in Counter(name for name, _ in named).items() if n > 1]
    if repeated:
        raise SkteError(f"--estimator names {', '.join(repeated)} more than once: name it once.")
    chosen = dict(named)
    if broken := [name for name, made in chosen.items() if made is None and name not in known]:
        raise SkteError(f"--estimator {broken[0]} cannot be used: see the warning.")
    return {name: known[name]() if made is None else made for name, made in chosen.items()}


def _layers(names: list[str] | None) -> dict[str, str | list[str]]:
    """Return the name of a set of stages as a string, names of modules as a list."""
    if not names:
        return {}
    is_set = len(names) == 1 and names[0] in ("auto", *LAYER_SETS)
    return {"layers": names[0] if is_set else names}


def _fit(
    args: argparse.Namespace,
) -> tuple[ModelBankSelector | HalvingModelBankSelector | DatasetRanks, list[str]]:
    """Return what was found on one or several datasets, and what of the bank is not understood."""
    from sklearn.exceptions import FitFailedWarning

    from skte.extraction import watch_progress
    from skte.selection import rank_datasets

    selector = _selector(args)
    bank, problems = open_bank(args.bank, args)
    data = {name: load_data(path, args) for name, path in _named(args).items()}
    shown = sys.stderr.isatty() and not (args.quiet or args.verbose)
    progress = Progress(bank.names, shown=shown, is_race=args.race, n_datasets=len(data))
    with warnings.catch_warnings(), watch_progress(progress):
        # Failures are listed after the table.
        warnings.simplefilter("ignore", FitFailedWarning)
        try:
            if len(data) > 1:
                return rank_datasets(selector, bank, data), problems
            return selector.fit(bank, *data.values()), problems
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(_kept(progress, args)) from error
        finally:
            progress.close()


def _named(args: argparse.Namespace) -> dict[str, str]:
    """Return the datasets by the names of their folders or files, or by path where these repeat."""
    paths = args.data
    if repeated := [path for path in paths if paths.count(path) > 1]:
        raise SkteError(f"--data names {repeated[0]} more than once: name it once.")
    for option in ("cases", "exclude", "splits"):
        if len(paths) > 1 and getattr(args, option):
            raise SkteError(
                f"--{option} chooses cases of one dataset: rank the datasets one by one, or in "
                "Python with skte.selection.rank_datasets."
            )
    names = [Path(path).resolve().name for path in paths]
    return dict(zip(names if len(set(names)) == len(names) else paths, paths, strict=True))


def _selector(args: argparse.Namespace) -> ModelBankSelector | HalvingModelBankSelector:
    """Return the selector that the options describe, not fitted."""
    from skte.selection import HalvingModelBankSelector, ModelBankSelector, extractor_for

    estimators = _made(args)
    window = args.window[0] if args.window and len(args.window) == 1 else args.window
    settings: dict[str, Any] = {
        "extractor": extractor_for(
            estimators,
            **_layers(args.layers),
            window_size=window,
            batch_size=args.batch_size,
            **({} if args.samples is None else {"samples": args.samples}),
        ),
        "cache": args.cache,
        "n_jobs": args.n_jobs,
        "device": args.device,
        "timeout": args.timeout,
        "error_score": math.nan,
        "reference": not args.no_reference,
        "random_state": args.seed,
    }
    if args.race:
        return HalvingModelBankSelector(estimators, **settings)
    return ModelBankSelector(estimators, confidence_level=args.confidence, **settings)


def _kept(progress: Progress, args: argparse.Namespace) -> str:
    """Say what an interrupted run leaves, and the command that goes on from there."""
    done = f"{len(progress.done)} of {len(progress.names)} models were done"
    done = "the race was not decided" if progress.is_race else done
    if args.cache is None:
        return f"{done}; nothing is kept without --cache DIR"
    command = shlex.join(["skte", *args.argv])
    return f"{done}; features are kept in {args.cache}, and this goes on from there:\n{command}"
