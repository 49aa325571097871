"""The whole way of a ranking on synthetic images, checked by fine-tuning."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray

from skte._files import write_atomically, write_text_atomically
from skte._table import format_table
from skte._text import say
from skte.datasets import make_phantoms
from skte.demo._train import (
    SmallUNet,
    TrainingCase,
    load_body,
    mean_foreground_dice,
    prepare_cases,
    small_unet,
    train_network,
)
from skte.estimators import CCFV, LEEP, recommended_estimators
from skte.evaluation import EvaluationCard, evaluate_ranking
from skte.metrics import rank_scores
from skte.report import CorrelationDisplay, write_report, write_results
from skte.selection import ModelBankSelector

_TARGET = "sheets"
# The first ones are what `skte rank` takes by itself, so that the printed command agrees.
_ESTIMATORS = recommended_estimators() | {"ccfv": CCFV(), "leep": LEEP()}


@dataclass(frozen=True)
class DemoResult:
    """What the demo found; models are in bank order.

    Attributes
    ----------
    selector : ModelBankSelector
        Fitted on the target task with all estimators.
    dice : ndarray of shape (n_models, n_seeds)
        Mean foreground Dice on test cases after each fine-tuning.
    card : EvaluationCard
        Agreement of each estimator and baseline with the mean Dice.
    """

    selector: ModelBankSelector
    dice: NDArray[np.float64]
    card: EvaluationCard


def run_demo(
    out: str | os.PathLike[str] = "skte-demo",
    *,
    random_state: int = 0,
    quick: bool = False,
    verbose: bool = True,
) -> DemoResult:
    """Make phantoms, pre-train a small bank, rank it, and check the ranking by fine-tuning.

    Parameters
    ----------
    out : path-like, default="skte-demo"
        Folder for the bank, the labelled cases, the results and the report.
    random_state : int, default=0
        Seed of phantoms, networks, patches and voxels.
    quick : bool, default=False
        Hardly any training: shows the steps and proves nothing.
    verbose : bool, default=True
        Whether to print progress and results.

    Returns
    -------
    DemoResult
        Scores, Dice and how they agree.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    log = _Log(verbose)
    n_jobs = 1 if quick else min(4, joblib.cpu_count())
    n_train, n_test = (3, 3) if quick else (8, 32)
    log.say(f"Target task: {_TARGET}; {n_train} labelled cases, {n_test} more to test on.")
    phantoms = make_phantoms(
        n_train + n_test, task=_TARGET, size=IMAGE_SIZE, random_state=random_state
    )
    data = write_msd(folder / "target", phantoms[:n_train], name=_TARGET)
    with log.timed(f"Pre-training {len(SOURCES)} small networks on source tasks"):
        bank = write_bank(folder / "bank", random_state=random_state, quick=quick, n_jobs=n_jobs)
    with log.timed("Ranking them with six estimators that share one extraction"):
        selector = ModelBankSelector(
            _ESTIMATORS, n_jobs=n_jobs, confidence_level=0.9, random_state=random_state
        ).fit(bank, data)
    cases = prepare_cases(phantoms, CLASS_IDS)
    with log.timed("Fine-tuning every one of them with several seeds"):
        dice = fine_tune_bank(
            folder / "bank",
            cases[:n_train],
            cases[n_train:],
            seeds=range(random_state, random_state + (2 if quick else 5)),
            quick=quick,
            n_jobs=n_jobs,
        )
    scores = {name: selector.results_[f"score_{name}"] for name in _ESTIMATORS}
    size, zero_shot = selector.results_["n_parameters"], selector.results_["zero_shot"]
    scores |= {"size": size, "zero-shot": zero_shot}
    mean_dice = dice.mean(axis=1)
    card = evaluate_ranking(
        selector, performance=mean_dice, size=size, zero_shot=zero_shot, ks=(1,)
    )
    log.say("\nRanks by score, beside the Dice after fine-tuning (zero-shot: the source head's)\n")
    log.say(_model_table(selector.names_, mean_dice, scores))
    log.say(f"\nAgreement with the order of the Dice\n\n{card}\n")
    log.say("\n".join(_verdict(selector.ranking_, list(selector.names_), dice)))
    result = DemoResult(selector, dice, card)
    _write_files(folder, result, mean_dice, log)
    return result


class _Log:
    """Print lines and keep them for the report."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
        if self.verbose:
            say(line, flush=True)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.say(f"{what}: {time.perf_counter() - begun:.0f} s")


def _write_files(
    folder: Path, result: DemoResult, mean_dice: NDArray[np.float64], log: _Log
) -> None:
    selector = result.selector
    write_results(selector.results_, folder / "ranking.csv")
    content = {"models": selector.names_, "dice": result.dice.tolist(), **result.card.to_dict()}
    write_text_atomically(folder / "results.json", json.dumps(content, indent=1))
    where = str(folder)
    if find_spec("matplotlib") is not None:
        where = f"{folder}; ranking.html shows them"
        display = CorrelationDisplay.from_scores(
            mean_dice,
            selector.scores_,
            selector.names_,
            performance_name="mean Dice after fine-tuning",
            score_name="CrossCaseProbe",
        )
        write_atomically(folder / "ranking.png", lambda path: display.figure_.savefig(path))
        write_report(selector, folder / "ranking.html")
    again = f"skte rank --bank {folder / 'bank' / 'bank.json'} --data {folder / 'target'}"
    log.say(f"\nResults are in {where}. To rank again:\n  {again}")
    write_text_atomically(folder / "report.txt", "\n".join(log.lines) + "\n")


def write_msd(folder: Path, subjects: Sequence[Any], name: str) -> Path:
    """Write cases, as `make_phantoms` returns them, in the Decathlon's layout; return the folder.

    Parameters
    ----------
    folder : Path
        Where they go; created if missing.
    subjects : sequence of Subject
        The cases.
    name : str
        Name of the dataset.
    """
    training = []
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        file = f"{subject['case_id']}.nii.gz"
        subject["image"].save(folder / "imagesTr" / file)
        subject["label"].save(folder / "labelsTr" / file)
        training.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
    description = {
        "name": name,
        "modality": {"0": "synthetic"},
        "labels": {str(k): v for k, v in subjects[0]["label_names"].items()},
        "numTraining": len(training),
        "training": training,
        "numTest": 0,
        "test": [],
    }
    write_text_atomically(folder / "dataset.json", json.dumps(description, indent=2))
    return folder


def _model_table(
    names: Sequence[str], dice: NDArray[np.float64], scores: Mapping[str, NDArray[np.float64]]
) -> str:
    """Show the rank by each list of scores beside the Dice, best Dice first."""
    ranks = [rank_scores(values) for values in scores.values()]
    rows = [
        [names[i], f"{dice[i]:.3f}", *(int(rank[i]) for rank in ranks)]
        for i in np.argsort(-dice, kind="stable")
    ]
    return format_table(["model", "Dice", *scores], rows)


def _verdict(ranking: Sequence[str], names: Sequence[str], dice: NDArray[np.float64]) -> list[str]:
    """Say what the first choice was worth; `dice` has shape (n_models, n_seeds)."""
    mean = dice.mean(axis=1)
    first = names.index(ranking[0])
    place, lost = int(rank_scores(mean)[first]), mean.max() - mean[first]
    nth = {1: "the best", 2: "the second best", 3: "the third best"}.get(place, f"number {place}")
    spread, noise = np.ptp(mean), np.std(dice, axis=1, ddof=1).mean()
    return [
        f"The first choice, {ranking[0]}, is {nth} of {len(names)} after fine-tuning"
        + (f", {lost:.3f} below the best." if lost else "."),
        f"The mean Dice of the models spans {spread:.3f}, {spread / noise:.1f} times the standard",
        f"deviation of one fine-tuning with another seed ({noise:.3f}).",
        "One run on synthetic images shows that the steps work. It is no evidence for or",
        "against an estimator.",
    ]


CLASS_IDS = (0, 1)
IMAGE_SIZE = (64, 64, 1)
_train = partial(train_network, patch_size=(32, 32), batch_size=8)
_N_SOURCE_CASES = 24
_N_TUNING_STEPS, _TUNING_RATE = 80, 1e-3


@dataclass(frozen=True)
class Source:
    """How one network of the demo's bank is trained."""

    task: str | None  # None leaves the network untrained
    n_steps: int
    widths: tuple[int, ...] = (8, 16, 32)


# Fixed before any score was seen: tasks other than the target, one of them with a short
# training, one with a narrow network, and one network without training.
SOURCES: Mapping[str, Source] = {
    "ellipsoids": Source("ellipsoids", 200),
    "ellipsoids-short": Source("ellipsoids", 40),
    "lobes": Source("lobes", 200),
    "shells": Source("shells", 200),
    "texture": Source("texture", 200),
    "tubes-narrow": Source("tubes", 200, widths=(4, 8, 16)),
    "untrained": Source(None, 0),
}


def write_bank(folder: Path, *, random_state: int, quick: bool, n_jobs: int) -> Path:
    """Pre-train the networks of `SOURCES`, write weights and manifest, return the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = {
        name: source.n_steps // 20 if quick else source.n_steps for name, source in SOURCES.items()
    }
    Parallel(n_jobs=n_jobs)(
        delayed(_pretrain)(source, steps[name], random_state + i, folder / f"{name}.pt")
        for i, (name, source) in enumerate(SOURCES.items())
    )
    models = [
        {
            "name": name,
            "factory": "skte.demo:small_unet",
            "arguments": {"spatial_dims": 2, "widths": list(source.widths)},
            "weights": f"{name}.pt",
            "preprocessing": ["ZNormalization"],
            "provenance": {"task": source.task or "none", "steps": steps[name]},
        }
        for name, source in SOURCES.items()
    ]
    return write_text_atomically(folder / "bank.json", json.dumps({"models": models}, indent=2))


def fine_tune_bank(
    folder: Path,
    train: Sequence[TrainingCase],
    test: Sequence[TrainingCase],
    *,
    seeds: Sequence[int],
    quick: bool,
    n_jobs: int,
) -> NDArray[np.float64]:
    """Mean foreground Dice of every network after fine-tuning, of shape (n_models, n_seeds)."""
    # All weights but those of the head are loaded and all are trained, as in the paper of
    # CC-FV. A seed gives every network the same patches.
    n_steps = _N_TUNING_STEPS // 20 if quick else _N_TUNING_STEPS
    dice = Parallel(n_jobs=n_jobs)(
        delayed(_fine_tune)(source, folder / f"{name}.pt", train, test, n_steps, seed)
        for name, source in SOURCES.items()
        for seed in seeds
    )
    return np.reshape(dice, (len(SOURCES), len(seeds)))


def _pretrain(source: Source, n_steps: int, seed: int, weights: Path) -> None:
    network = _fresh(source, seed)
    if source.task is not None:
        phantoms = make_phantoms(
            _N_SOURCE_CASES, task=source.task, size=IMAGE_SIZE, random_state=seed
        )
        with _one_thread():
            _train(network, prepare_cases(phantoms, CLASS_IDS), n_steps=n_steps, random_state=seed)
    write_atomically(weights, lambda path: torch.save(network.state_dict(), path))


def _fine_tune(
    source: Source,
    weights: Path,
    train: Sequence[TrainingCase],
    test: Sequence[TrainingCase],
    n_steps: int,
    seed: int,
) -> float:
    network = _fresh(source, seed)
    load_body(network, torch.load(weights, weights_only=True))
    with _one_thread():
        _train(network, train, n_steps=n_steps, random_state=seed, learning_rate=_TUNING_RATE)
        return mean_foreground_dice(network, test)


def _fresh(source: Source, seed: int) -> SmallUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return small_unet(widths=source.widths, spatial_dims=2)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small train fastest on one thread each, several at a time."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
