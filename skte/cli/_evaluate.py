"""``skte evaluate`` and ``skte next``: what follows a ranking."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skte._files import write_text_atomically
from skte._text import complain, read_cell, say
from skte.cli._options import add_command, add_trusted_option, count, open_bank, seed, share
from skte.exceptions import SkteError

if TYPE_CHECKING:
    from skte.bank import BankEntry

_BASELINES = ("size", "zero_shot")


def add_evaluate_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte evaluate`` to the command line."""
    parser = add_command(
        commands, common, _evaluate, "evaluate", "judge a ranking by what the models reached",
        "evaluate --ranking ranking.json --performance dice.csv",
        "Weighted Kendall with p-value and interval, Pearson, Spearman and regret of a ranking, "
        "beside the baselines that the performance file has columns for.",
    )  # fmt: skip
    add = parser.add_argument
    add("--ranking", required=True, metavar="FILE", help="what skte rank --out wrote")
    add(
        "--performance",
        required=True,
        metavar="FILE",
        help="CSV or JSON with columns name and performance; columns size, zero_shot and "
        "architecture give baselines and agreement within architectures",
    )
    add(
        "--column",
        action="append",
        metavar="NAME",
        help="column of scores; may be repeated (default: every score_..., else score)",
    )
    add("--confidence", type=share, default=0.9, metavar="LEVEL")
    add("--seed", type=seed, default=0, metavar="N", help="seed of the draws")
    add("--json", action="store_true", help="print JSON instead of tables")
    add("--out", metavar="FILE", help="write the JSON there")


def _evaluate(args: argparse.Namespace) -> int:
    from skte.evaluation import evaluate_ranking

    ranking = _read_ranking(args.ranking)
    reached = _read_table(args.performance)
    if len({str(row.get("n_cases")) for row in ranking.values()}) > 1:
        raise SkteError(
            f"{args.ranking} holds the scores of a race, in which models saw different cases "
            "(n_cases): evaluate a ranking of skte rank without --race."
        )
    scores = {
        column.removeprefix("score_"): _numbers(ranking, column, args.ranking)
        for column in args.column or _score_columns(ranking, args.ranking)
    }
    performance = _numbers(reached, "performance", args.performance)
    columns = set().union(*(row.keys() for row in reached.values()))
    baselines: dict[str, Any] = {
        name: _numbers(reached, name, args.performance) for name in _BASELINES if name in columns
    }
    kinds = {name: str(row.get("architecture", "")) for name, row in reached.items()}
    unknown = [name for name in next(iter(scores.values())) if name not in reached]
    kinds |= dict.fromkeys(unknown, "")
    try:
        card = evaluate_ranking(
            scores,
            performance=performance,
            **baselines,
            architecture=kinds if "architecture" in columns else None,
            confidence_level=args.confidence,
            random_state=args.seed,
        )
    except ValueError as error:
        raise SkteError(str(error)) from error
    if args.out:
        write_text_atomically(args.out, card.to_json() + "\n")
    say(card.to_json() if args.json else card)
    if card.excluded:
        complain("left out", ", ".join(card.excluded))
    return 1 if card.excluded else 0


def _read_ranking(path: str) -> dict[str, dict[str, Any]]:
    """Rows of a file of results by model, without those of untrained references."""
    rows = _read_table(path)
    return {name: row for name, row in rows.items() if str(row.get("reference")) != "True"}


def _read_table(path: str) -> dict[str, dict[str, Any]]:
    """Rows by the model's name."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".json"):
        raise SkteError(f"{path}: give a .csv or .json file.")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        rows: Any = json.loads(text) if suffix == ".json" else _csv_rows(text)
    except OSError as error:
        raise SkteError(f"{path} cannot be read: {error}.") from error
    except ValueError as error:
        raise SkteError(f"{path} is not valid {suffix[1:].upper()}: {error}.") from error
    if isinstance(rows, Mapping):  # {"model": 0.8}
        rows = [{"name": name, "performance": value} for name, value in rows.items()]
    if isinstance(rows, list):  # as tables head the column
        rows = [
            {"name": row["model"], **row} if isinstance(row, Mapping) and "model" in row else row
            for row in rows
        ]
    if not isinstance(rows, list) or not all(isinstance(r, Mapping) and "name" in r for r in rows):
        raise SkteError(f"{path} needs a column 'name' and one row per model.")
    if len(datasets := {str(row["dataset"]) for row in rows if "dataset" in row}) > 1:
        raise SkteError(
            f"{path} ranks models on several datasets ({', '.join(sorted(datasets))}): keep the "
            "rows of one of them."
        )
    names = [str(row["name"]) for row in rows]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not names:
        raise SkteError(f"{path} must name every model once; repeated: {repeated}.")
    return {name: dict(row) for name, row in zip(names, rows, strict=True)}


def _csv_rows(text: str) -> list[dict[str, Any]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    # Names lose the apostrophe that protects spreadsheets.
    return [{**row, "name": read_cell(row["name"])} if row.get("name") else row for row in rows]


def _score_columns(rows: Mapping[str, Mapping[str, Any]], path: str) -> list[str]:
    columns = list(next(iter(rows.values())))
    found = [column for column in columns if column.startswith("score_")]
    found = found or [column for column in columns if column == "score"]
    if not found:
        raise SkteError(f"{path} has no column of scores; it has {columns}. Give --column.")
    return found


def _numbers(rows: Mapping[str, Mapping[str, Any]], column: str, path: str) -> dict[str, float]:
    """Return one number per model; an empty cell is NaN."""
    values: dict[str, float] = {}
    wrong = []
    for name, row in rows.items():
        cell = row.get(column)
        try:
            values[name] = float("nan") if cell in (None, "") else float(cell)
        except (TypeError, ValueError):
            wrong.append(f"{name}: {cell!r}")
    if wrong or all(column not in row for row in rows.values()):
        what = f"holds no numbers ({'; '.join(wrong)})" if wrong else "is missing"
        if not wrong:
            what += f"; it has {', '.join(map(str, next(iter(rows.values()))))}"
        raise SkteError(f"{path}: column {column!r} {what}.")
    return values


def add_next_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte next`` to the command line."""
    parser = add_command(
        commands, common, _next, "next", "print how to start fine-tuning from a model",
        "next ranking.json --bank bank.yaml --classes 3",
        "Print the commands of nnU-Net or of MONAI bundles, or the lines of Python, that start "
        "fine-tuning from the first choice of a ranking, or from another model.",
    )  # fmt: skip
    add = parser.add_argument
    add("ranking", nargs="?", metavar="FILE", help="what skte rank --out wrote: its first choice")
    add("--bank", required=True, metavar="PATH", help="manifest of the models, or their folder")
    add_trusted_option(parser)
    add("--model", metavar="NAME", help="another model than the first")
    add("--classes", type=count, metavar="N", help="classes of your data, background included")


def _next(args: argparse.Namespace) -> int:
    from skte.report import fine_tuning

    if not (args.ranking or args.model):
        raise SkteError("skte next needs the file that skte rank --out wrote, or --model NAME.")
    rows = _read_ranking(args.ranking) if args.ranking else {}
    name = args.model or _first(rows, args.ranking)
    bank, _ = open_bank(args.bank, args)
    lines = fine_tuning(bank[name], _source(bank[name], args), args.classes)
    doubts = dict.fromkeys(str(row["no_answer"]) for row in rows.values() if row.get("no_answer"))
    say("\n".join([*(f"# {doubt}" for doubt in doubts), lines]))
    return 0


def _first(rows: Mapping[str, Mapping[str, Any]], path: str) -> str:
    """Name the first model of the short list of a file of results, or else of its ranks."""
    for column in ("choice", "rank"):
        places = [(float(row[column]), name) for name, row in rows.items() if row.get(column)]
        if places:
            return min(places)[1]
    raise SkteError(f"{path} has no ranks: give what skte rank --out wrote, or --model NAME.")


def _source(entry: BankEntry, args: argparse.Namespace) -> str:
    """Lines of Python that read an entry from any folder, as this command has read it."""
    path, roots = Path(args.bank).absolute(), [str(Path(one).absolute()) for one in args.allow_root]
    limits: dict[str, Any] = {"trusted_packages": args.trust_package, "extra_roots": roots}
    read = "load_bank"
    if path.is_dir() and args.trusted:
        read, limits["trusted"] = "ModelBank.from_folder", args.trusted
    given = "".join(f", {option}={value!r}" for option, value in limits.items() if value)
    found = f"{read}({str(path)!r}{given})[{entry.name!r}]"
    lines = [f"from skte.bank import {read.partition('.')[0]}"]
    if entry.trusted and read == "load_bank":
        lines, found = (
            ["from dataclasses import replace", *lines],
            f"replace({found}, trusted=True)",
        )
    folders = [str(Path(one).absolute()) for one in args.factory_path]
    if folders:
        lines = ["import sys", *lines, *(f"sys.path.append({one!r})" for one in folders)]
    return "\n".join([*lines, found])
