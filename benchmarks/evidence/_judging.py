"""How well each score orders the models of each target: one table from the small files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence._place import Place, truth_file
from benchmarks.evidence._scoring import load_scores, score_file
from benchmarks.evidence._tasks import SUPPORT, TASKS, Bank, Model
from skte.metrics import pearson_score, regret_at_k, weighted_kendall_score

__all__ = [
    "Target",
    "add_static_ranker",
    "choose_by_family",
    "collect",
    "interval_over_families",
    "judge",
    "summarise",
]

Row = NDArray[np.float64]

COLLAPSED = 0.1  # Dice of a run below which it is screened
LEAST_SHARE = 0.7  # of the bank's models: 20 of 28
LEAST_SPREAD = 0.01
_LEAST_FAMILIES = 4  # for an interval
#: Rows that are no choice for the default: the upper bound, and what looks at no features.
NOT_CHOSEN = ("probe, best", "source steps", "static ranker", "model size", "width")
BASELINES = (
    "source steps",
    "static ranker",
    "model size",
    "width",
    "zero-shot Dice",
    "short fine-tuning",
)


@dataclass
class Target:
    """Dice and scores of the models of one target."""

    name: str
    models: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    ladder: list[bool] = field(default_factory=list)
    runs: list[list[float]] = field(default_factory=list)  # of each model, by run
    scores: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    n_bank: int = 0  # models that the bank has
    n_collapsed: int = 0
    n_missing: int = 0

    @property
    def family(self) -> str:
        """Targets of one family are left out together."""
        return TASKS[self.name].family

    @property
    def dice(self) -> Row:
        """Mean over the runs that did not collapse."""
        return np.array([np.mean(runs) for runs in self.runs])

    @property
    def judged(self) -> bool:
        """Whether the target has models and differences enough."""
        return (
            len(self.models) >= LEAST_SHARE * self.n_bank and float(self.dice.std()) > LEAST_SPREAD
        )

    def rows(self, with_ladder: bool) -> NDArray[np.bool_]:
        """Models that are looked at."""
        return np.array([with_ladder or not rung for rung in self.ladder])

    def repeatability(self) -> dict[str, float | None]:
        """Agreement of two runs, and what a perfect score could reach against the mean of all.

        The ceiling is a Pearson correlation, by Spearman and Brown's formula.
        """
        n_runs = max(map(len, self.runs))
        complete = np.array([runs for runs in self.runs if len(runs) == n_runs])
        if n_runs < 2 or len(complete) < LEAST_SHARE * self.n_bank:
            return {"tau": None, "pearson": None, "ceiling": None}
        pairs = list(permutations(complete.T, 2))
        tau = float(np.mean([weighted_kendall_score(a, b) for a, b in pairs]))
        r = float(np.mean([pearson_score(a, b) for a, b in pairs]))
        ceiling = float(np.sqrt(n_runs * r / (1 + (n_runs - 1) * r))) if r > 0 else 0.0
        return {"tau": tau, "pearson": r, "ceiling": ceiling}


def collect(place: Place, bank: Bank, n_cases: int = SUPPORT) -> list[Target]:
    """Read what is there; models without a run or without scores are counted as missing."""
    found = [_collect_one(place, bank, name, n_cases) for name in bank.targets]
    return [target for target in found if target.models]


def _collect_one(place: Place, bank: Bank, name: str, n_cases: int) -> Target:
    target = Target(name, n_bank=len(bank.models_of(name)))
    all_scores: list[Mapping[str, float]] = []
    seconds: dict[str, list[float]] = {}
    for model, rung in bank.models_of(name):
        files = [truth_file(place, name, model, run) for run in range(bank.n_runs)]
        file = score_file(place, name, model, n_cases)
        runs = [float(np.mean(json.loads(f.read_text())["dice"])) for f in files if f.exists()]
        if not runs or not file.exists():
            target.n_missing += 1
            continue
        kept = [dice for dice in runs if dice >= COLLAPSED]
        target.n_collapsed += len(runs) - len(kept)
        if not kept:
            continue
        target.models.append(model.name)
        target.roles.append(_role(name, model))
        target.ladder.append(rung)
        target.runs.append(kept)
        facts = load_scores(file)
        all_scores.append({**facts["scores"], "source steps": float(model.steps)})
        for key, value in facts["seconds"].items():
            seconds.setdefault(key, []).append(value)
    keys = dict.fromkeys(key for scores in all_scores for key in scores)
    for key in keys:
        target.scores[key] = _filled([scores.get(key, np.nan) for scores in all_scores])
    target.seconds = {key: float(np.mean(values)) for key, values in seconds.items()}
    return target


def _role(target: str, model: Model) -> str:
    """Name of a recipe that other targets have as well."""
    if model.source == TASKS[target].sibling:
        return model.name.replace(model.source, "sibling", 1)
    if model.source.startswith("mixture"):
        return f"mixture-{model.steps}"
    return model.name


def _filled(values: Sequence[float]) -> list[float]:
    """Missing scores become the worst of the others."""
    row = np.array(values, dtype=float)
    known = row[np.isfinite(row)]
    worst = float(known.min()) if len(known) else 0.0
    return [worst if np.isnan(v) else float(v) for v in row]


def add_static_ranker(found: Sequence[Target]) -> None:
    """Mean place of a model's recipe on the other targets; of its length where it is new."""
    places: dict[str, dict[str, float]] = {}
    for target in found:
        ranks = target.dice.argsort().argsort() / max(1, len(target.models) - 1)
        places[target.name] = dict(zip(target.roles, ranks.tolist(), strict=True))
    for target in found:
        others = [known for name, known in places.items() if name != target.name]
        row = []
        for role in target.roles:
            seen = [known[role] for known in others if role in known]
            if not seen:  # a source that no other target had: others of its length
                tail = role.rsplit("-", 1)[-1]
                seen = [
                    place
                    for known in others
                    for name, place in known.items()
                    if name.rsplit("-", 1)[-1] == tail and not name.startswith("sibling")
                ]
            row.append(float(np.mean(seen)) if seen else 0.5)
        target.scores["static ranker"] = row


def judge(dice: Row, scores: Row) -> dict[str, float | None]:
    """Agreement of one score with one target's Dice."""
    finite = np.isfinite(scores)
    constant = len(np.unique(scores)) < 2
    usable = finite.sum() > 2 and len(np.unique(scores[finite])) > 1
    return {
        "tau": 0.0 if constant else weighted_kendall_score(dice, scores),
        "pearson": pearson_score(dice[finite], scores[finite]) if usable else None,
        "regret@1": regret_at_k(dice, scores, 1),
        "regret@3": regret_at_k(dice, scores, 3),
        "within": float(regret_at_k(dice, scores, 1) <= 0.01),
    }


def summarise(found: Sequence[Target], with_ladder: bool) -> dict[str, Any]:
    """Every score on every judged target, and the means over targets."""
    used = [target for target in found if target.judged]
    names = dict.fromkeys(key for target in used for key in target.scores)
    table: dict[str, Any] = {}
    for name in names:
        if all(len(set(target.scores.get(name, [0.0]))) < 2 for target in used):
            continue  # size and width, where all networks have the same
        by_target = {}
        for target in used:
            rows = target.rows(with_ladder)
            scores = np.array(target.scores.get(name, np.zeros(len(rows))))[rows]
            by_target[target.name] = judge(target.dice[rows], scores)
        table[name] = {"targets": by_target, "mean": _means(by_target.values())}
    return dict(sorted(table.items(), key=lambda item: -item[1]["mean"]["tau"]))


def _means(verdicts: Any) -> dict[str, float | None]:
    verdicts = list(verdicts)
    found: dict[str, float | None] = {}
    for key in verdicts[0]:
        known = [verdict[key] for verdict in verdicts if verdict[key] is not None]
        found[key] = float(np.mean(known)) if known else None
    return found


def interval_over_families(
    values: Row, families: Sequence[str], n_resamples: int = 5000
) -> dict[str, float | None]:
    """Mean of one value per target and its 95 % interval, drawing families of targets."""
    mean, names = float(values.mean()), np.array(families)
    distinct = np.unique(names)
    if len(distinct) < _LEAST_FAMILIES:
        return {"mean": mean, "low": None, "high": None}
    rng = np.random.default_rng(0)
    means = []
    for _ in range(n_resamples):
        drawn = rng.choice(distinct, size=len(distinct))
        rows = np.concatenate([np.flatnonzero(names == family) for family in drawn])
        means.append(values[rows].mean())
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": mean, "low": float(low), "high": float(high)}


def choose_by_family(
    table: Mapping[str, Any], allowed: Callable[[str], bool] = lambda name: True
) -> dict[str, Any]:
    """For each family, the score that is best on the others, and what it reaches on this one."""
    names = [name for name in table if not name.startswith(NOT_CHOSEN) and allowed(name)]
    tasks = list(next(iter(table.values()))["targets"])
    families = list(dict.fromkeys(TASKS[name].family for name in tasks))
    chosen: dict[str, str] = {}
    verdicts: dict[str, Any] = {}
    for family in families:
        others = [name for name in tasks if TASKS[name].family != family]
        if not others:
            continue
        tau = {n: np.mean([table[n]["targets"][t]["tau"] for t in others]) for n in names}
        chosen[family] = max(tau, key=lambda name: tau[name])
        for task in tasks:
            if TASKS[task].family == family:
                verdicts[task] = table[chosen[family]]["targets"][task]
    mean = _means(verdicts.values()) if verdicts else {}
    return {"chosen": chosen, "targets": verdicts, "mean": mean}
