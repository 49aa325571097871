"""Result files of the study: one per bank, target and number of labelled cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks._provenance import provenance, write_json
from benchmarks.evidence._judging import Target, add_static_ranker, collect
from benchmarks.evidence._place import Place
from benchmarks.evidence._tasks import BANKS, OTHER_SUPPORTS, SUPPORT

__all__ = ["RESULTS", "read_results", "write_results"]

RESULTS = Path(__file__).with_name("results")


def write_results(place: Place, bank: str, folder: Path) -> None:
    """Gather the small files of a work folder into result files."""
    for n_cases in (SUPPORT, *OTHER_SUPPORTS):
        for target in collect(place, BANKS[bank], n_cases):
            content = {
                "provenance": provenance(labelled_cases=n_cases),
                "target": _rounded(asdict(target)),
            }
            write_json(folder / bank / f"{target.name}-{n_cases}.json", content)


def read_results(folder: Path, bank: str, n_cases: int = SUPPORT) -> list[Target]:
    """Targets as result files hold them, with the static ranker that needs all of them."""
    files = sorted((folder / bank).glob(f"*-{n_cases}.json"))
    found = [Target(**json.loads(file.read_text())["target"]) for file in files]
    add_static_ranker(found)
    return found


def _rounded(value: Any) -> Any:
    """Numbers with seven significant digits."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(part) for part in value]
    return value
