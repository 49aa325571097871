"""Options and types of arguments that several commands share."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skte._memory import parse_bytes
from skte._registry import LAYOUTS, with_plugins
from skte._text import complain
from skte.exceptions import BankError, DatasetError, SkteError, SkteWarning

if TYPE_CHECKING:
    from skte.bank import ModelBank
    from skte.datasets import CaseList


def add_command(
    commands: Any,
    common: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    name: str,
    text: str,
    example: str,
    description: str | None = None,
) -> argparse.ArgumentParser:
    """Add a command, or an action of one, with the line of its help and an example."""
    epilog = f"example:\n  skte {example}\n\n"
    parser: argparse.ArgumentParser = commands.add_parser(
        name, parents=[common], help=text, description=description, epilog=epilog
    )
    parser.set_defaults(run=run)
    return parser


def add_trusted_option(parser: Any) -> None:
    """Add ``--trusted`` and ``--trust-package`` to a parser or group."""
    parser.add_argument(
        "--trusted",
        action="append",
        default=[],
        metavar="NAME",
        help="this model may run code when it is read: its path relative to the bank's folder, "
        "or its name in a manifest; may be repeated, and is stored nowhere",
    )
    add_trust_package_option(parser)


def add_trust_package_option(parser: Any) -> None:
    """Add ``--trust-package`` to a parser or group."""
    add = parser.add_argument
    add(
        "--trust-package",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="manifests may name functions of this package or module as factories; may be repeated",
    )
    add(
        "--factory-path",
        action="append",
        default=[],
        metavar="DIR",
        help="folder with your own .py files that --trust-package names; searched last, also by "
        "processes of this run, as PYTHONPATH is",
    )


def open_bank(path: str, args: argparse.Namespace) -> tuple[ModelBank, list[str]]:
    """Return a bank, its trusted models marked, and what was not understood of its folder."""
    from skte.bank import ModelBank

    limits = {"trusted_packages": args.trust_package, "extra_roots": args.allow_root}
    _check_beside(Path(path), args.trust_package)
    with warnings.catch_warnings():
        # It is a problem, reported at the end.
        warnings.filterwarnings("ignore", "Folder ", SkteWarning)
        if Path(path).is_dir():
            bank = ModelBank.from_folder(path, trusted=args.trusted, **limits)
        else:
            bank = _trust(ModelBank.from_manifest(path, **limits), args.trusted)
    return bank, [f"{name}: {why}" for name, why in bank.not_understood.items()]


def bank_options(args: argparse.Namespace) -> str:
    """Options that open the same bank in another command, from any folder."""
    words = ["--bank", str(Path(args.bank).absolute())]
    for option in ("trusted", "trust_package", "factory_path", "allow_root"):
        for value in getattr(args, option):
            is_path = option in ("factory_path", "allow_root")
            shown = str(Path(value).absolute()) if is_path else value
            words += [f"--{option.replace('_', '-')}", shown]
    return shlex.join(words)


@contextmanager
def factory_folders(args: argparse.Namespace) -> Iterator[None]:
    """Search the folders of --factory-path last, in this process and those that it starts."""
    folders = [str(Path(folder).absolute()) for folder in getattr(args, "factory_path", ())]
    for folder in folders:
        if not Path(folder).is_dir():
            raise SkteError(f"--factory-path {folder}: there is no such folder.")
    kept, before = sys.path.copy(), os.environ.get("PYTHONPATH")
    sys.path += folders
    if folders:
        os.environ["PYTHONPATH"] = os.pathsep.join([*([before] if before else []), *folders])
    try:
        yield
    finally:
        sys.path[:] = kept
        if folders and before is None:
            del os.environ["PYTHONPATH"]
        elif folders and before is not None:
            os.environ["PYTHONPATH"] = before


def _check_beside(bank: Path, packages: Sequence[str]) -> None:
    """Name the folder of a bank where it holds a trusted module that is not installed."""
    folder = bank if bank.is_dir() else bank.parent
    for package in packages:
        top = package.partition(".")[0]
        beside = [path for path in (folder / f"{top}.py", folder / top) if path.exists()]
        if beside and top.isidentifier() and find_spec(top) is None:
            raise SkteError(
                f"--trust-package {package}: it is not installed, but {beside[0]} is beside the "
                f"models. To run it, add --factory-path {shlex.quote(str(folder))}"
            )


def tell_problems(problems: list[str]) -> int:
    """Print problems to stderr; returns the exit code."""
    for problem in problems:
        complain("problem", for_shell(problem))
    return 1 if problems else 0


def for_shell(text: str) -> str:
    """Return a message with the remedy that there is here, in place of Python's."""
    text = text.replace("pass trusted=True", "give --trusted NAME")
    for word, here in (("pass", "in"), ("Pass", "In")):  # options of entries of a manifest
        text = re.sub(rf"\b{word} (state_key|prefix)=", rf"{here} the manifest, write \1: ", text)
    return text


def _trust(bank: ModelBank, names: list[str]) -> ModelBank:
    """Return a bank in which the models of these names are trusted."""
    from skte.bank import ModelBank

    strangers = sorted(set(names) - set(bank.names))
    if strangers:
        raise BankError(
            f"trusted names {strangers}, but the manifest has no such models; it has "
            f"{sorted(bank.names)}."
        )
    return ModelBank(replace(e, trusted=True) if e.name in names else e for e in bank)


def add_data_options(parser: Any) -> None:
    """Add what describes a dataset, and which cases to look at."""
    add = parser.add_argument
    add(
        "--labels",
        metavar="FILE.json",
        help='choose and merge classes by name: a file, or its text: {"heart": ["LV", "RV"]}',
    )
    add(
        "--channels",
        nargs="+",
        metavar="NAME",
        help="channels to read: nnU-Net's names, BIDS suffixes, columns, DICOM series folders",
    )
    add(
        "--layout",
        choices=with_plugins(LAYOUTS, "skte.layouts"),
        help="how the data is laid out (default: detected)",
    )
    add("--cases", nargs="+", metavar="ID", help="ids of the cases to look at, by spaces or commas")
    add("--exclude", nargs="+", metavar="ID", help="ids of cases to leave out, likewise")
    add(
        "--splits",
        metavar="FILE.json",
        help="nnU-Net's splits_final.json: look at the training cases of --fold",
    )
    add("--fold", type=partial(_bounded, 0, 2**15), metavar="K", help="fold of --splits, from 0")
    add("--skip-unusable", action="store_true", help="leave out cases that cannot be used")


def load_data(path: str, args: argparse.Namespace) -> CaseList:
    """Load the dataset that the options describe."""
    from skte.datasets import load_dataset

    try:
        cases = load_dataset(
            path,
            labels=None if args.labels is None else _read_json("--labels", args.labels),
            channels=args.channels,
            layout=args.layout,
            cases=_chosen_cases(args),
            exclude=_ids(args.exclude or ()),
            extra_roots=args.allow_root,
            skip_incomplete=args.skip_unusable,
        )
    except DatasetError as error:
        if args.splits is None or not str(error).startswith("cases names "):
            raise
        origin = f"fold {args.fold} of {args.splits}"
        raise DatasetError(f"{origin}{str(error).removeprefix('cases')}") from error
    return _usable(cases) if args.skip_unusable else cases


def _ids(words: Sequence[str]) -> list[str]:
    """Split lists at commas."""
    return [name for word in words for name in word.split(",") if name]


def _chosen_cases(args: argparse.Namespace) -> list[str] | None:
    """Return the ids that --cases, or --splits with --fold, name."""
    if (args.splits is None) != (args.fold is None):
        raise SkteError("--splits and --fold belong together: --splits splits_final.json --fold 0")
    if args.splits is None:
        return None if args.cases is None else _ids(args.cases)
    if args.cases is not None:
        raise SkteError("--cases and --splits both choose cases: give one of them.")
    splits = _read_json("--splits", args.splits)
    try:
        return list(map(str, splits[args.fold]["train"]))
    except (KeyError, TypeError):
        raise SkteError(
            f"--splits {args.splits} is not as nnU-Net writes it: a list of folds, each with "
            "'train' and 'val'."
        ) from None
    except IndexError:
        raise SkteError(f"--fold {args.fold}: {args.splits} has {len(splits)} folds.") from None


def _usable(cases: CaseList) -> CaseList:
    """Leave out what cannot be used, and say so."""
    from skte.datasets import inspect_dataset

    problems: dict[str, list[str]] = {}
    for problem in inspect_dataset(cases).problems:
        if problem.case_id is not None:
            problems.setdefault(problem.case_id, []).append(problem.what)
    for name, what in problems.items():
        complain("left out", f"case {name}: {'; '.join(what)}")
    return cases.like(case for case in cases if case["case_id"] not in problems)


def _read_json(option: str, text: str) -> Any:
    if not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise SkteError(f"{option} {text}: the file cannot be read ({error}).") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SkteError(f"{option} is not valid JSON ({error}): fix it.") from error


_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DAYS = {"": 1.0, "h": 1 / 24, "d": 1.0, "w": 7.0}


def _bounded(lowest: int, highest: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(
            f"must be an integer from {lowest} to {highest}, got {text!r}"
        )
    return value


seed = partial(_bounded, 0, 2**32 - 1)
count = partial(_bounded, 1, 2**31 - 1)


def jobs(text: str) -> int:
    """Read a number of processes in joblib's way: negative ones count back from all cores."""
    value = _bounded(-(2**15), 2**15, text)
    if value == 0:
        raise argparse.ArgumentTypeError("must not be 0; leave it out for one at a time")
    return value


def size(text: str) -> int:
    """Read a number of bytes: ``0``, ``500MB``, ``1.5 GiB`` (powers of 1024)."""
    try:
        return 0 if text.strip() == "0" else parse_bytes(text)
    except SkteError as error:
        raise argparse.ArgumentTypeError(f"must be a size such as 500MB or 2GB: {error}") from None


def age(text: str) -> float:
    """Read a time in days: ``30``, ``30d``, ``12h``, ``2w``."""
    return _with_unit(text, _DAYS, "a time such as 12h, 30d or 2w")


def seconds(text: str) -> float:
    """Read a time in seconds, above 0: ``90``, ``90s``, ``15m``, ``2h``."""
    value = _with_unit(text, _SECONDS, "a time such as 90s, 15m or 2h")
    if value == 0:
        raise argparse.ArgumentTypeError("must be above 0; leave it out for no limit")
    return value


def share(text: str) -> float:
    """Read a number between 0 and 1, such as a level of confidence."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, got {text!r}")
    return value


def _with_unit(text: str, units: dict[str, float], expected: str) -> float:
    match = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in units:
        raise argparse.ArgumentTypeError(f"must be {expected}, got {text!r}")
    return float(match[1]) * units[match[2]]
