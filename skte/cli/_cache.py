"""``skte cache``: look after a folder of extracted features."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from skte._text import complain, say, say_json
from skte.cli._options import age, size
from skte.exceptions import SkteError
from skte.extraction import FeatureCache

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte cache`` to the command line."""
    parser = commands.add_parser("cache", help="look after a folder of extracted features")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    for name, run, text in (
        ("info", _info, "count files and bytes"),
        ("verify", _verify, "read every file and name the damaged ones"),
        ("prune", _prune, "remove what was not used for longest"),
        ("clear", _clear, "remove all features, and nothing else"),
    ):
        action = actions.add_parser(name, parents=[common], help=text)
        action.set_defaults(run=run)
        action.add_argument("folder", metavar="DIR", help="the cache's folder")
        action.add_argument("--json", action="store_true", help="print JSON instead of text")
        if name == "prune":
            action.add_argument("--max-size", type=size, help="bytes it may keep: 2GB, 500MiB ...")
            action.add_argument("--max-age", type=age, help="time since the last use: 30d, 12h ...")


def _info(args: argparse.Namespace) -> int:
    found = _open(args.folder).describe()
    if args.json:
        say_json(found, indent=2)
    else:
        for name, value in found.items():
            say(f"{name.removeprefix('n_'):<10} {value}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    cache = _open(args.folder)
    damaged = [str(path) for path in cache.verify()]
    found = cache.describe()
    n_files = found["n_entries"] + found["n_records"]
    if args.json:
        say_json({"n_files": n_files, "damaged": damaged}, indent=2)
    else:
        say(f"{n_files} files, {len(damaged)} of them damaged")
    for path in damaged:
        complain("problem", f"{path} is damaged; the next run replaces it")
    return 1 if damaged else 0


def _prune(args: argparse.Namespace) -> int:
    if args.max_size is None and args.max_age is None:
        raise SkteError("skte cache prune needs --max-size, --max-age, or both.")
    cache = _open(args.folder)
    return _report(args, cache, cache.prune(max_bytes=args.max_size, max_age_days=args.max_age))


def _clear(args: argparse.Namespace) -> int:
    cache = _open(args.folder)
    return _report(args, cache, cache.clear())


def _report(args: argparse.Namespace, cache: FeatureCache, removed: Any) -> int:
    left = cache.describe()["n_bytes"]
    if args.json:
        say_json({**removed._asdict(), "n_bytes_left": left}, indent=2)
    else:
        say(f"removed {removed.n_files} files, {removed.n_bytes} bytes; {left} bytes are left")
    if removed.n_failed:
        complain(
            "problem",
            f"{removed.n_failed} files in {cache.root} could not be removed: check the "
            "permissions of its folders",
        )
    return 1 if removed.n_failed else 0


def _open(folder: str) -> FeatureCache:
    if not Path(folder).exists():  # a run would create it; here it is a typing error
        raise SkteError(f"The cache folder {folder} does not exist.")
    return FeatureCache(folder)
