"""The tables of docs/evidence.md, from the result files alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence._judging import (
    BASELINES,
    Target,
    choose_by_family,
    paired_interval,
    summarise,
)
from benchmarks.evidence._report import read_results
from benchmarks.evidence._scoring import BY_LAYER, OF_HEAD, STAGE_SETS
from benchmarks.evidence._tasks import OTHER_SUPPORTS, SUPPORT, TASKS

__all__ = ["write_page"]

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "evidence-transfer.md"
_PROBES = ("probe, threshold", "probe, dice", "probe, auc", "probe, best")
_SAMPLED = tuple(f"CrossCaseProbe, {reading}" for reading in ("threshold", "dice", "auc"))
#: Rows of the table by target: each estimator as skte's default reads it, and the probes.
SHOWN = (
    *(f"{name}|all" for name in (*_PROBES, *_SAMPLED)),
    "probe, threshold|bottleneck+decoder",
    "probe, auc|bottleneck+decoder",
    *(f"{name}|decoder" for name in BY_LAYER),
    "LogME|last",
    *OF_HEAD,
    *BASELINES,
)


def write_page(folder: Path, page: Path = _PAGE) -> None:
    """Fill the tables between the page's markers."""
    found = read_results(folder, "ladder")
    tables = {True: summarise(found, True), False: summarise(found, False)}
    parts = {
        "coverage": _coverage(found),
        "by-target": _by_target(found, tables),
        "stages": _stages(tables),
        "choice": _choice(tables),
        "intervals": _intervals(tables),
        "cases": _cases(folder),
        "cost": _cost(found),
        "untrained": _untrained(found),
    }
    text = page.read_text()
    for name, part in parts.items():
        begin, end = (f"<!-- {word} {name} -->" for word in ("begin", "end"))
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{part}\n{end}{rest.split(end)[1]}"
    page.write_text(text)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *map(list, rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _coverage(found: Sequence[Target]) -> str:
    header = [
        "target",
        "sibling",
        "models",
        "not run",
        "collapsed runs",
        "two runs",
        "Dice, worst to best",
    ]
    header += ["tau of two runs", "ceiling", "judged"]
    rows = []
    for target in found:
        agreement = target.repeatability()
        dice = 100 * target.dice
        rows.append(
            [
                target.name,
                TASKS[target.name].sibling,
                str(len(target.models)),
                str(target.n_missing),
                str(target.n_collapsed),
                str(sum(len(runs) > 1 for runs in target.runs)),
                f"{dice.min():.1f} to {dice.max():.1f}",
                _number(agreement["tau"]),
                _number(agreement["ceiling"]),
                "yes" if target.judged else "no",
            ]
        )
    return _table(header, rows)


def _by_target(found: Sequence[Target], tables: Mapping[bool, Any]) -> str:
    names = [target.name for target in found if target.judged]
    header = ["tau with the ladder", *names, "mean", "mean without the ladder", "Pearson"]
    header += ["regret@1", "regret@3", "within one point"]
    table, bare = tables[True], tables[False]
    shown = sorted((n for n in SHOWN if n in table), key=lambda n: -table[n]["mean"]["tau"])
    rows = []
    for name in shown:
        mean = table[name]["mean"]
        rows.append(
            [
                name.replace("|", ", "),
                *(_number(table[name]["targets"][target]["tau"]) for target in names),
                f"**{_number(mean['tau'])}**",
                _number(bare[name]["mean"]["tau"]),
                _number(mean["pearson"]),
                _number(100 * mean["regret@1"], 1),
                _number(100 * mean["regret@3"], 1),
                f"{100 * mean['within']:.0f} %",
            ]
        )
    return _table(header, rows)


def _stages(tables: Mapping[bool, Any]) -> str:
    rows = []
    for name in (*_PROBES, *_SAMPLED, *BY_LAYER):
        cells = []
        for stages in STAGE_SETS:
            key = f"{name}|{stages}"
            known = key in tables[True]
            cells.append(
                " / ".join(_number(tables[ladder][key]["mean"]["tau"]) for ladder in (True, False))
                if known
                else ""
            )
        rows.append([name, *cells])
    return _table(["mean tau, ladder / without", *STAGE_SETS], rows)


def _choice(tables: Mapping[bool, Any]) -> str:
    kinds = {
        "any score": lambda name: True,
        "a probe on the grid": lambda name: name.startswith("probe, "),
        "skte's CrossCaseProbe": lambda name: name.startswith("CrossCaseProbe"),
        "no probe": lambda name: not name.startswith(("probe, ", "CrossCaseProbe")),
    }
    rows = []
    for with_ladder, where in ((True, "with"), (False, "without")):
        for kind, allowed in kinds.items():
            found = choose_by_family(tables[with_ladder], allowed)
            mean = found["mean"]
            if not mean:
                continue
            chosen = sorted(set(found["chosen"].values()))
            rows.append(
                [
                    f"{kind}, {where} the ladder",
                    _number(mean["tau"]),
                    _number(100 * mean["regret@1"], 1),
                    f"{100 * mean['within']:.0f} %",
                    "; ".join(name.replace("|", ", ") for name in chosen),
                ]
            )
    header = [
        "chosen among",
        "tau on families left out",
        "regret@1",
        "within one point",
        "what was chosen",
    ]
    return _table(header, rows)


def _intervals(tables: Mapping[bool, Any]) -> str:
    first = "probe, threshold|all"
    others = ["probe, dice|all", "probe, auc|bottleneck+decoder", "CrossCaseProbe, threshold|all"]
    others += [
        "KNN|decoder",
        "LogME|decoder",
        "LogME|last",
        "HScore|decoder",
        "CCFV|decoder",
        "LEEP",
        *BASELINES,
    ]
    rows = []
    for other in others:
        cells = [other.replace("|", ", ")]
        for with_ladder in (True, False):
            if first not in tables[with_ladder] or other not in tables[with_ladder]:
                cells.append("")
                continue
            found = paired_interval(tables[with_ladder], first, other)
            interval = (
                "" if found["low"] is None else f" ({found['low']:+.2f} to {found['high']:+.2f})"
            )
            cells.append(f"{found['mean']:+.2f}{interval}")
        rows.append(cells)
    return _table(
        ["probe on all stages, best threshold, minus", "with the ladder", "without"], rows
    )


def _cases(folder: Path) -> str:
    names = [
        f"{probe}|{stages}" for probe in _PROBES[:3] for stages in ("all", "bottleneck+decoder")
    ]
    rows = []
    for n_cases in sorted((SUPPORT, *OTHER_SUPPORTS)):
        found = read_results(folder, "ladder", n_cases)
        if not any(target.judged for target in found):
            continue
        table = summarise(found, True)
        n_targets = sum(target.judged for target in found)
        rows.append(
            [str(n_cases), str(n_targets), *(_number(table[n]["mean"]["tau"]) for n in names)]
        )
    return _table(["labelled cases", "targets", *(n.replace("|", ", ") for n in names)], rows)


def _cost(found: Sequence[Target]) -> str:
    names = dict.fromkeys(key for target in found for key in target.seconds)
    rows = [
        [name.replace("|", ", "), _number(float(np.mean([t.seconds[name] for t in found])), 3)]
        for name in names
        if ("|" not in name or name.endswith("|all")) and all(name in t.seconds for t in found)
    ]
    return _table(["processor seconds for one model and five slices", "mean"], rows)


def _untrained(found: Sequence[Target]) -> str:
    """Mean place of the untrained networks: 0 is first, 1 last."""
    rows = []
    judged = [target for target in found if target.judged]
    truth = [_place(target, target.dice) for target in judged]
    rows.append(["Dice after fine-tuning", _number(float(np.mean(truth)))])
    for name in SHOWN:
        if all(name in target.scores for target in judged):
            places = [_place(target, np.array(target.scores[name])) for target in judged]
            rows.append([name.replace("|", ", "), _number(float(np.mean(places)))])
    return _table(["ranked by", "mean place of the untrained (0 first, 1 last)"], rows)


def _place(target: Target, values: Any) -> float:
    ranks = (-np.asarray(values)).argsort().argsort() / max(1, len(values) - 1)
    chosen = [name.startswith("untrained") for name in target.models]
    return float(ranks[chosen].mean()) if any(chosen) else float("nan")
