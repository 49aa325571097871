"""The whole way of a ranking on synthetic images, checked by fine-tuning."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skte.datasets import make_phantoms
from skte.demo._bank import SOURCES, TASK_SIZE, fine_tune_bank, write_bank
from skte.demo._target import write_msd
from skte.demo._train import prepare_cases
from skte.estimators import CCFV, GBC, LEEP, LogME, TransRate
from skte.selection import (
    ModelBankSelector,
    WeightedKendallResult,
)

__all__ = ["DemoResult", "run_demo"]

TARGET = "texture"
_CLASS_IDS = (0, 1)


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes
    ----------
    selector : ModelBankSelector
        Fitted on the target task with all estimators.
    dice : ndarray of shape (n_models, n_seeds)
        Mean foreground Dice on test cases after each fine-tuning.
    agreement : dict of str to WeightedKendallResult or None
        Of each estimator's scores, and each baseline's, with the mean Dice; None
        where it is not defined (scores or Dice are constant).
    regret : dict of str to float
        Dice lost by taking the model that is ranked first.
    text : str
        All that was printed.
    """

    selector: ModelBankSelector
    dice: NDArray[np.float64]
    agreement: dict[str, WeightedKendallResult | None]
    regret: dict[str, float]
    text: str


def run_demo(
    out: str | os.PathLike[str] = "skte-demo",
    *,
    random_state: int = 0,
    quick: bool = False,
    verbose: bool = True,
) -> DemoResult:
    """Make phantoms, pre-train a small bank, rank it, and check the ranking.

    Each network of the bank is pre-trained on one tissue task, but for one that stays
    untrained. The bank is ranked for another task by all five estimators, which share
    one extraction. Then every network is fine-tuned on the same cases, and the order
    of the scores is compared with the order of the Dice on test cases.

    Parameters
    ----------
    out : path-like, default="skte-demo"
        Folder for the results: ``bank/bank.json`` with weights, ``target/`` (the
        labelled cases), ``ranking.csv``, ``results.json``, ``report.txt`` and, where
        matplotlib is installed, ``ranking.png``.
    random_state : int, default=0
        Seed of phantoms, networks, patches and voxels.
    quick : bool, default=False
        Hardly any training: shows the steps and proves nothing.
    verbose : bool, default=True
        Print what is done.

    Returns
    -------
    DemoResult
        Scores, Dice and how they agree.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if verbose:
            print(line, flush=True)

    n_target, n_test = (3, 3) if quick else (6, 30)
    say(f"Target task: {TARGET}, {n_target} labelled cases to rank on, {n_test} to test on.")
    phantoms = make_phantoms(
        n_target + n_test, task=TARGET, size=TASK_SIZE, random_state=random_state
    )
    data = write_msd(folder / "target", phantoms[:n_target], name=TARGET)
    with _timed(say, f"Pre-trained {len(SOURCES)} small networks on other tasks"):
        manifest = write_bank(folder / "bank", random_state=random_state, quick=quick)
    with _timed(say, "Ranked them with five estimators that share one extraction"):
        selector = ModelBankSelector(
            {
                "ccfv": CCFV(),
                "logme": LogME(),
                "leep": LEEP(),
                "gbc": GBC(),
                "transrate": TransRate(),
            },
            random_state=random_state,
        ).fit(manifest, data)
    target = prepare_cases(phantoms, _CLASS_IDS)
    with _timed(say, "Fine-tuned all of them to see"):
        outcome = fine_tune_bank(
            folder / "bank",
            target[:n_target],
            target[n_target:],
            random_state=random_state,
            quick=quick,
        )
