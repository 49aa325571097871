"""Time the estimators against the forms they were published in, side by side.

    python -m benchmarks.speed            # all, about ten minutes
    python -m benchmarks.speed --smoke    # small sizes, seconds
    python -m benchmarks.speed --only pairs    # distances between cases, by themselves

One thread each, processor time, rounds in turn; the ratio is the median over rounds.
``pip install POT`` adds the comparison with POT. The published distance is made of
``scipy.linalg.sqrtm``, whose speed depends on the version of scipy, so ``--only pairs``
names its result file after scipy's version: install another one to compare.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks._provenance import provenance, write_json
from benchmarks.speed import _labelled, _pairs
from benchmarks.speed._timing import Ratio

RESULTS = Path(__file__).parent / "results"


def ratios(smoke: bool, only: str | None) -> Iterator[Ratio]:
    """All comparisons, one after the other."""
    yield from _pairs.ratios(smoke)
    if only is None:
        yield from _labelled.ratios(smoke)


def main() -> None:
    """Run everything and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="small sizes, no result file")
    parser.add_argument("--only", choices=["pairs"], help="a part of the study")
    args = parser.parse_args()
    print(f"{'case':58s} {'ours':>9s} {'theirs':>9s} {'ratio':>16s} {'difference':>10s}")
    rows = []
    for ratio in ratios(args.smoke, args.only):
        rows.append(ratio.row())
        span = f"{ratio.ratio_median:.1f} ({ratio.ratio_min:.1f}-{ratio.ratio_max:.1f})"
        print(
            f"{ratio.case:58s} {ratio.ours_seconds:8.4f}s {ratio.theirs_seconds:8.3f}s "
            f"{span:>16s} {ratio.difference:10.1e}",
            flush=True,
        )
    content: dict[str, Any] = {"ratios": rows}
    if args.only:
        if not args.smoke:
            name = f"pairs_scipy-{version('scipy')}.json"
            write_json(RESULTS / name, {**provenance(seed=0, threads=1), **content})
        return
    if not args.smoke:
        write_json(RESULTS / "estimators.json", {**provenance(seed=0, threads=1), **content})


if __name__ == "__main__":
    main()
