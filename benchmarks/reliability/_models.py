"""Models that misbehave, each before a sound one, whose score must be the same bit for bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skte import CCFV, BankEntry, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from tests.reliability.misbehaving import APART, IN_PROCESS, Misbehaving
from tests.reliability.models import Faulty

EXTRACTOR = SegmentationFeatureExtractor(n_class_samples=60, n_case_samples=60, window_size=16)
# Where models run, by the parameters of the selector; what each one can survive.
DOORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one process": ({}, IN_PROCESS),
    "reused workers (n_jobs=2)": ({"n_jobs": 2}, IN_PROCESS),
    "apart (timeout)": ({"timeout": 3600.0}, {**IN_PROCESS, **APART}),
}


def run(smoke: bool, seed: int) -> dict[str, Any]:
    """Try every attack wherever models run; in the forward pass and while the model is built."""
    rows = []
    moments = ("forward",) if smoke else ("forward", "init")
    for where, (_, attacks) in DOORS.items():
        names = list(attacks)[:: 30 if smoke else 1]
        found = [row for when in moments for row in try_models(where, when, names)]
        problems = [row["attack"] for row in found if not row["held"]]
        rows.append(
            {
                "attack": f"models that misbehave, {where}",
                "tried": len(found),
                "held": len(found) - len(problems),
                "problems": problems,
            }
        )
    return {"door": "models", "rows": rows}


def try_models(door: str, when: str, names: list[str]) -> list[dict[str, Any]]:
    """Run each attack before a sound model, and compare that one's score."""
    cases = make_phantoms(3, size=(16, 16, 16))
    params, _ = DOORS[door]
    seeds = [i % 4 for i in range(len(names))]  # of equal networks one tells what is expected
    sound = [
        BankEntry(f"sound {i}", Faulty, arguments={"seed": seed}) for i, seed in enumerate(seeds)
    ]
    bad = [
        BankEntry(f"bad {i}", Misbehaving, arguments={"attack": name, "when": when})
        for i, name in enumerate(names)
    ]
    bank = [entry for pair in zip(bad, sound, strict=True) for entry in pair]
    expected = list(_scores(sound[:4], cases, {}).values())
    found = _scores(bank, cases, params)
    rows = []
    for name, entry, seed in zip(names, sound, seeds, strict=True):
        same = found.get(entry.name, math.nan) == expected[seed]
        row = {"door": door, "attack": f"{name} ({when})", "tried": 1, "held": int(same)}
        rows.append(row)
    return rows


def _scores(bank: list[BankEntry], cases: Any, params: dict[str, Any]) -> dict[str, float]:
    # Without untrained twins: they are no other attack.
    selector = ModelBankSelector(
        CCFV(), extractor=EXTRACTOR, error_score=np.nan, reference=False, **params
    )
    selector.fit(bank, cases)
    return dict(zip(selector.names_, map(float, selector.scores_), strict=True))
