"""Freeze what skte computes and says, to see what a change of its code changes.

    python -m benchmarks.golden record FILE.json
    python -m benchmarks.golden compare FILE.json
    python -m benchmarks.golden --smoke

Fixed runs go through public names only: tables, rankings, features, reports, result
files, cache keys, and what the shell prints. Values, digests of arrays, cache keys and
words are compared apart, so that an edit of messages can be told from a change of
numbers. Seconds, versions and paths are left out. ``--smoke`` runs two situations twice,
which must agree.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before numpy and torch are imported: sums must not depend on the number of threads.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["COLUMNS"] = "100"

import torch  # noqa: E402

from benchmarks._provenance import data_folder, provenance  # noqa: E402
from benchmarks.golden._record import KINDS, Record  # noqa: E402
from benchmarks.golden._situations import SITUATIONS, Place  # noqa: E402


def run(data: Path, chosen: list[str]) -> dict[str, Any]:
    """Run the situations; returns their findings by kind."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), data)
        for name in chosen:
            begun = time.perf_counter()
            record = Record(place.folder, data)
            SITUATIONS[name](record, place)
            for kind, values in record.found.items():
                found[kind] |= {f"{name}/{path}": value for path, value in values.items()}
            print(f"{name}: {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
    return found


def differences(kind: str, old: Any, new: Any, rtol: float) -> Iterator[str]:
    """Yield a line for each path that differs."""
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            yield f"- {path}"
        elif path not in old:
            yield f"+ {path}"
        elif not _equal(kind, old[path], new[path], rtol):
            yield from _explain(path, old[path], new[path])


def _equal(kind: str, old: Any, new: Any, rtol: float) -> bool:
    if kind == "digests" and rtol > 0:  # bytes change with the last digit
        return old["is"] == new["is"] and _near([old["mean"]], [new["mean"]], rtol, old["std"])
    if kind == "values" and rtol > 0 and isinstance(old, list) and isinstance(new, list):
        return _near(old, new, rtol)
    if kind == "values" and rtol > 0:
        return _near([old], [new], rtol)
    return bool(old == new)


def _near(old: list[Any], new: list[Any], rtol: float, scale: float = 0.0) -> bool:
    return len(old) == len(new) and all(
        a == b
        if isinstance(a, str) or isinstance(b, str) or a is None or b is None
        else math.isclose(a, b, rel_tol=rtol, abs_tol=rtol * scale)
        for a, b in zip(old, new, strict=True)
    )


def _explain(path: str, old: Any, new: Any) -> Iterator[str]:
    if not isinstance(old, list) or not isinstance(new, list):
        yield f"! {path}: {old!r} -> {new!r}"
    elif len(old) == len(new) and not any(isinstance(item, str) for item in [*old, *new]):
        changed = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        shown = ", ".join(f"[{i}] {old[i]!r} -> {new[i]!r}" for i in changed[:4])
        yield f"! {path}: {len(changed)} of {len(old)}: {shown}"
    else:
        yield f"! {path}:"
        lines = difflib.unified_diff([*map(str, old)], [*map(str, new)], n=0, lineterm="")
        yield from (f"    {line}" for line in [*lines][2:] if not line.startswith("@@"))


def compare(old: dict[str, Any], new: dict[str, Any], args: argparse.Namespace) -> int:
    """Print differences; returns 1 if there are some."""
    counts = {}
    for kind in KINDS:
        mine = {p: v for p, v in old[kind].items() if p.partition("/")[0] in args.only}
        lines = list(differences(kind, mine, json.loads(json.dumps(new[kind])), args.rtol))
        counts[kind] = sum(not line.startswith("    ") for line in lines)
        ignored = " (ignored)" if kind in args.ignore and lines else ""
        print(f"{kind}: {counts[kind]} of {len(mine)} paths differ{ignored}")
        for line in lines[: args.show]:
            print(f"  {line}")
        if len(lines) > args.show:
            print(f"  ... {len(lines) - args.show} more lines (--show)")
    if counts["digests"] and not counts["keys"] and _has_keys(old, args.only):
        print("Features differ under the same keys: raise the version of what changed them.")
    return int(any(n for kind, n in counts.items() if kind not in args.ignore))


def _has_keys(old: dict[str, Any], chosen: list[str]) -> bool:
    """Whether cache keys were compared."""
    return any(path.partition("/")[0] in chosen for path in old["keys"])


def main() -> int:
    """Record or compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.golden",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=["record", "compare"], nargs="?")
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--data", help="folder of datasets (default: SKTE_DATA)")
    parser.add_argument("--only", nargs="+", choices=SITUATIONS, default=list(SITUATIONS))
    parser.add_argument("--ignore", nargs="+", choices=KINDS, default=[], help="print, do not fail")
    parser.add_argument("--rtol", type=float, default=0.0, help="0: equal to the last bit")
    parser.add_argument("--show", type=int, default=40, help="lines of each kind")
    parser.add_argument("--smoke", action="store_true", help="a few runs, twice; no file")
    args = parser.parse_args()
    if args.smoke:
        args.only = ["plans", "alone"]
        return compare(run(Path(), args.only), run(Path(), args.only), args)
    if args.action is None or args.file is None:
        parser.error("say record or compare, and name a file")
    found = run(data_folder(args.data), args.only)
    if args.action == "compare":
        return compare(json.loads(args.file.read_text())["found"], found, args)
    write(args.file, found)
    return 0


def write(file: Path, found: dict[str, Any]) -> None:
    """Write a file with one line for each path, which version control can compare."""
    kinds = []
    for kind, values in found.items():
        lines = (f"{json.dumps(p)}:{json.dumps(v)}" for p, v in values.items())
        kinds.append(f'"{kind}": {{\n' + ",\n".join(lines) + "\n}")
    about = json.dumps(provenance(), indent=1)
    text = f'{{"provenance": {about},\n"found": {{\n' + ",\n".join(kinds) + "\n}}\n"
    file.write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
