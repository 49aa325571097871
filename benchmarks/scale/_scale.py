"""Rank simulated banks of up to 1000 models x 100 cases, and see what grows how.

    python -m benchmarks.scale            # minutes
    python -m benchmarks.scale --smoke    # seconds, no result file

No network runs: features are drawn, kept in a `FeatureCache` and read from there, so that
time and memory are the library's own. The command line then ranks a bank of as many real
(tiny) networks on three cases.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import multiprocessing.dummy
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks._provenance import provenance, write_json
from benchmarks.scale._page import write_page
from skte import CCFV, BankEntry, LogME, ModelBankSelector, SegmentationFeatureExtractor
from skte.bank import LayerInfo
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.extraction import CaseStore
from skte.features import CaseFeatures, FeatureSet, LayerSample
from skte.report import write_report

RESULTS = Path(__file__).parent / "results"
_ROWS, _CHANNELS = 40, 8


class Recorded(SegmentationFeatureExtractor):  # type: ignore[misc]
    """Reads features that were kept under the names of model and case; draws what is missing."""

    def extract(self, subjects: Sequence[Any], store: CaseStore | None = None) -> FeatureSet:
        """Give the features of the entry on all cases."""
        self.layers_ = [LayerInfo("up", (1.0, 1.0, 1.0), _CHANNELS)]
        self.n_parameters_, self.n_axes_, self.window_size_ = 0, 3, None
        cases = [self._case(subject["case_id"]) for subject in subjects]
        return FeatureSet(cases, name=self.entry.name)

    def _case(self, case_id: str) -> CaseFeatures:
        model = int(self.entry.name.split("-")[1])
        number = int(case_id.split("_")[-1])
        key = hashlib.sha256(f"{model} {number}".encode()).hexdigest()
        known = self.cache.load(key)
        if known is None:
            known = _draw(model, number, case_id)
            self.cache.store(key, known)
        return known


def _draw(model: int, number: int, case_id: str) -> CaseFeatures:
    rng = np.random.default_rng([model, number])
    y = np.repeat([0, 1], _ROWS // 2)
    spread = 1 + model / 1000
    X = rng.normal(size=(2, _ROWS, _CHANNELS)) + spread * y[:, None] * np.arange(_CHANNELS)
    X = X.astype(np.float32)
    return CaseFeatures(case_id, {"up": LayerSample(X[0], y, X[1])})


def _peak_mib() -> float:
    """Of this process alone; getrusage hands on the peak of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _subjects(n_cases: int) -> list[Any]:
    return list(make_phantoms(n_cases, size=(8, 8, 8)))


def _rank(queue: Any, folder: Path, n_models: int, n_cases: int, report: Path) -> None:
    """In a process of its own, so that its peak of memory is its own."""
    cases = _subjects(n_cases)
    bank = [BankEntry(f"model-{i}", small_unet, arguments={"widths": (2, 4)})
            for i in range(n_models)]  # fmt: skip
    before = _peak_mib()
    selector = ModelBankSelector(
        {"ccfv": CCFV(), "logme": LogME()}, extractor=Recorded(), cache=folder
    )
    begun = time.perf_counter()
    selector.fit(bank, cases)
    seconds = time.perf_counter() - begun
    peak = _peak_mib()
    begun = time.perf_counter()
    write_report(selector, report, explain=False)
    shown = time.perf_counter() - begun
    row = {"seconds": seconds, "peak_mib": peak, "grown_mib": peak - before,
           "seconds_report": shown, "report_mib": report.stat().st_size / 2**20}  # fmt: skip
    queue.put(row)


def measure(folder: Path, n_models: int, n_cases: int, smoke: bool) -> dict[str, Any]:
    """Rank twice: features are drawn and kept, then read; each time in a process of its own.

    In a smoke test a thread does, as starting a process takes the most time.
    """
    cache = folder / f"{n_models}x{n_cases}"
    context: Any = multiprocessing.dummy if smoke else multiprocessing.get_context("spawn")
    rows = []
    for name in ("cold", "warm"):
        queue = context.Queue()
        arguments = (queue, cache, n_models, n_cases, folder / f"{name}.html")
        process = context.Process(target=_rank, args=arguments)
        process.start()
        rows.append(queue.get(timeout=60 if smoke else 3600))
        process.join()
    files = [path for path in cache.rglob("*") if path.is_file()]
    return {
        "models": n_models, "cases": n_cases, "seconds_filling": rows[0]["seconds"],
        **rows[1], "files": len(files), "cache_mib": sum(f.stat().st_size for f in files) / 2**20,
    }  # fmt: skip


def exponents(rows: Sequence[dict[str, Any]], over: str) -> dict[str, float]:
    """Slope on logarithmic axes between the first and the last row: 1 is linear."""
    size = np.log(rows[-1][over] / rows[0][over])
    keys = ("seconds_filling", "seconds", "seconds_report", "report_mib", "files", "cache_mib")
    return {key: float(np.log(rows[-1][key] / rows[0][key]) / size) for key in keys}


def command_line(folder: Path, n_models: int) -> dict[str, Any]:
    """Time ``skte bank list`` and ``skte rank`` on a manifest of real, tiny networks."""
    model = {"factory": "skte.demo:small_unet", "arguments": {"widths": [2, 4]}}
    models = [{"name": f"model-{i}", **model} for i in range(n_models)]
    (folder / "bank.json").write_text(
        json.dumps({"defaults": {"weights": "none"}, "models": models})
    )
    data = folder / "data"
    for part in ("images", "labels"):
        (data / part).mkdir(parents=True)
    for i, subject in enumerate(make_phantoms(3, size=(16, 16, 16))):
        subject["image"].save(data / "images" / f"case{i}.nii.gz")
        subject["label"].save(data / "labels" / f"case{i}.nii.gz")
    bank, out = str(folder / "bank.json"), str(folder / "ranking.csv")
    commands = {
        "bank list": ["bank", "list", bank],
        "rank": ["rank", "--bank", bank, "--data", str(data), "--out", out, "-q"],
    }
    found: dict[str, Any] = {"models": n_models}
    for name, arguments in commands.items():
        begun = time.perf_counter()
        run = subprocess.run([sys.executable, "-m", "skte", *arguments],
                             capture_output=True, text=True, check=False)  # fmt: skip
        found[name] = {"seconds": time.perf_counter() - begun, "code": run.returncode,
                       "lines": len(run.stdout.splitlines())}  # fmt: skip
        if run.returncode != 0:
            print(name, run.stderr[-500:], file=sys.stderr)
    return found


def main() -> None:
    """Run all sizes and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="small sizes, no result file")
    args = parser.parse_args()
    n_models = (2, 4) if args.smoke else (100, 1000)
    n_cases = (2, 4) if args.smoke else (25, 100)
    with TemporaryDirectory(prefix="skte-scale-") as name:
        folder = Path(name)
        by_models = [_tell(measure(folder, n, n_cases[-1], args.smoke)) for n in n_models]
        by_cases = [_tell(measure(folder, n_models[0], n, args.smoke)) for n in n_cases[:-1]]
        by_cases.append(by_models[0])
        commands = _tell(command_line(folder / _made(folder, n_models[-1]), n_models[-1]))
    content = {
        "by_models": by_models,
        "by_cases": by_cases,
        "exponents": {
            "models": exponents(by_models, "models"),
            "cases": exponents(by_cases, "cases"),
        },
        "command_line": commands,
    }
    _tell(content["exponents"])
    if not args.smoke:
        threads = os.environ.get("OMP_NUM_THREADS", "default")
        write_json(RESULTS / "scale.json", {**provenance(threads=threads), **content})
        write_page(content)


def _made(folder: Path, n_models: int) -> str:
    (folder / f"cli{n_models}").mkdir()
    return f"cli{n_models}"


def _tell(row: Any) -> Any:
    print(json.dumps(row), flush=True)
    return row
