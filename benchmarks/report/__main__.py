"""How large is the report of many models and cases, and how long does it take?

    python -m benchmarks.report [--keep PAGE.html]

The cases are phantoms with noise and with slices as large as those of scans, since their
pictures are what does not compress. The networks are untrained: their scores do not matter.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks._provenance import provenance, write_json
from skte import CCFV, LogME, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.report import write_report

RESULTS = Path(__file__).parent / "results"
LIMIT_BYTES = 3_000_000


def rank(n_models: int, n_cases: int, size: tuple[int, int, int]) -> ModelBankSelector:
    """Rank untrained networks for noisy phantoms, with confidence, one window a case."""
    bank = {f"network-{i:02d}": small_unet(widths=(4, 8)) for i in range(n_models)}
    cases = make_phantoms(n_cases, size=size, n_classes=3, noise=0.5)
    extractor = SegmentationFeatureExtractor(
        n_class_samples=60, n_case_samples=60, overlap=0.0, window_size=(32, 32, min(size))
    )
    selector = ModelBankSelector(
        {"ccfv": CCFV(), "logme": LogME()}, extractor=extractor, confidence_level=0.9
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # windows that miss a class
        return selector.fit(bank, cases)


def measure(n_models: int, n_cases: int, size: tuple[int, int, int], page: Path) -> dict[str, Any]:
    """Write the report of a ranking, and say how large it is and how long it took."""
    selector = rank(n_models, n_cases, size)
    begin = time.perf_counter()
    write_report(selector, page)
    return {
        "n_models": n_models,
        "n_cases": n_cases,
        "size": size,
        "bytes": page.stat().st_size,
        "seconds_write": time.perf_counter() - begin,
    }


def main() -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep the page as FILE.html")
    parser.add_argument("--smoke", action="store_true", help="3 models, 4 small cases")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        page = args.keep or Path(folder, "report.html")
        if args.smoke:
            found = measure(3, 4, (48, 48, 8), page)
        else:
            found = measure(20, 40, (192, 192, 12), page)
    print(f"{found['bytes'] / 1e6:.2f} MB in {found['seconds_write']:.1f} s")
    if found["bytes"] >= LIMIT_BYTES:
        raise SystemExit(f"The report is larger than {LIMIT_BYTES / 1e6:g} MB.")
    if not args.smoke:
        write_json(RESULTS / "report.json", {"provenance": provenance(seed=0), **found})


if __name__ == "__main__":
    main()
