"""Measure what a ranking costs, all sides in one run, and write the tables of the docs.

    python -m benchmarks.cost            # about twenty minutes of one core
    python -m benchmarks.cost --half     # volumes and windows of half the edges
    python -m benchmarks.cost --smoke    # small sizes, seconds, no result file
    python -m benchmarks.cost --only passes bank    # these again, the others as they are
    python -m benchmarks.cost --only switches gpu    # not part of the usual run

One thread and processor time, so that a busy machine changes little; only ``bank`` uses two
processes and shows wall time as well. Volumes are hearts at the size of a scan, cases of the
bank hippocampi; without real data (`SKTE_DATA`, ``--data``) both are phantoms.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks._provenance import provenance, write_json
from benchmarks.cost import _bank, _gpu, _growth, _host, _page, _passes, _scoring, _switches

RESULTS = Path(__file__).parent / "results" / "cost.json"
_APART = ("switches", "gpu")


def parts(size: str, data: Path | None, n_volumes: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured, by name."""
    smoke, full = size == "smoke", size == "full"
    edges = {"full": ((160, 160, 128), 96), "half": ((80, 80, 64), 48), "smoke": ((40, 40, 32), 32)}
    shape, edge = edges[size]
    window = (edge, edge, edge)
    network = "unet-8" if smoke else "unet-16"
    names = (network,) if smoke else ("unet-16", "unet-32", "unetr", "swin-unetr")
    rounds = 3 if full else 1
    data = None if smoke else data
    # Cases, edge of a case, widths; models, cases, jobs, widths.
    scored = (4, 16, (4, 8)) if smoke else (40, 64, (16, 32, 64, 128))
    ranked = (3, 6, 1, (4, 8)) if smoke else (20, 40, 2, (4, 8, 16, 32))
    host = (window, shape) if smoke else ((96, 96, 96), (160, 160, 128))
    return {
        "passes": lambda: _passes.passes(network, window, shape, data, n_volumes),
        "host": lambda: _host.host(*host, 1 if smoke else 7),
        "growth": lambda: _growth.growth(rounds, smoke),
        "scoring": lambda: _scoring.scoring(*scored, network, window, shape),
        "bank": lambda: _bank.bank(data, *ranked),
        "switches": lambda: {n: _switches.switches(n, (64, 64, 64), rounds) for n in names},
        "gpu": lambda: _gpu.gpu(names, window, shape, rounds),
    }


def main() -> None:
    """Run the parts, write the result file, and the tables of the docs from it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--smoke", action="store_true", help="small sizes, no result file")
    sizes.add_argument("--half", action="store_true", help="volumes and windows of half the edges")
    parser.add_argument("--only", nargs="+", help="measure these parts, keep the others")
    parser.add_argument("--volumes", type=int, default=2, help="of the part passes")
    parser.add_argument("--page", action="store_true", help="only write the tables again")
    parser.add_argument("--data", help="folder of the real images")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = "smoke" if args.smoke else "half" if args.half else "full"
    known = parts(size, _bank.tasks(args.data), 1 if args.smoke else args.volumes)
    names = [] if args.page else args.only or [name for name in known if name not in _APART]
    for name in names:
        print(name, flush=True)
        found = known[name]()
        print(json.dumps(found, indent=1), flush=True)
        if args.smoke:
            continue
        # A part that is done stays, whatever happens to the next.
        content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        content[name] = {
            **found,
            **provenance(),
            "date": datetime.date.today().isoformat(),
            "processor": platform.processor() or _model_name(),
        }
        write_json(RESULTS, content)
    if not args.smoke:
        _page.write(json.loads(RESULTS.read_text()))


def _model_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
