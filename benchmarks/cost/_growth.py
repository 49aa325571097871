"""How time and memory grow: the slope of log over log size, between two sizes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from benchmarks.cost._timing import Cost, cost
from skte import BankEntry, ModelBankSelector
from skte.datasets import make_phantoms
from skte.demo import small_unet

# Cases, edge of the volume, models, classes: one of them changes, and what it changes to.
_USUAL = {"cases": 4, "voxels of a case": 48, "models": 2, "classes": 2}
_TO = {"cases": 16, "voxels of a case": 96, "models": 8, "classes": 8}


def growth(rounds: int, smoke: bool) -> dict[str, Any]:
    """Exponents of processor time and peak memory of the default ranking, and passes."""
    usual, to = (
        [{k: max(2, v // 3) for k, v in sizes.items()} for sizes in (_USUAL, _TO)]
        if smoke
        else (_USUAL, _TO)
    )
    small = [_rank(usual) for _ in range(rounds)]
    rows = {}
    for name, size in to.items():
        large = [_rank({**usual, name: size}) for _ in range(rounds)]
        factor = size / usual[name]
        factor = factor**3 if name.startswith("voxels") else factor
        seconds = np.median([b.seconds / a.seconds for a, b in zip(small, large, strict=True)])
        memory = np.median([b.peak_mib / a.peak_mib for a, b in zip(small, large, strict=True)])
        rows[name] = {
            "times": round(factor, 2),
            "forward passes": [small[0].result, large[0].result],
            "seconds": [round(float(np.median([c.seconds for c in s])), 2) for s in (small, large)],
            "exponent of time": round(float(np.log(seconds) / np.log(factor)), 2),
            "exponent of memory": round(float(np.log(max(memory, 1e-9)) / np.log(factor)), 2),
        }
        print(f"  {name}: {rows[name]}", flush=True)
    return {"usual": usual, "window": 32, "rows": rows}


def _rank(sizes: dict[str, int]) -> Cost:
    cases = make_phantoms(
        sizes["cases"], size=(sizes["voxels of a case"],) * 3, n_classes=sizes["classes"]
    )
    bank = []
    for seed in range(sizes["models"]):
        torch.manual_seed(seed)
        network = small_unet(widths=(8, 16, 32))
        bank.append(BankEntry.from_module(f"m{seed}", network, window_size=(32, 32, 32)))
    # The kept preprocessed cases grow until they take 1 GiB.

    def run() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            selector = ModelBankSelector(reference=False).fit(bank, cases)
        return int(sum(selector.results_["n_windows"]))

    return cost(run)
