"""The tables and the figure of docs/evidence.md, from the result files alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from benchmarks.evidence._figure import draw_scores
from benchmarks.evidence._judging import (
    BASELINES,
    Target,
    choose_by_family,
    interval_over_families,
    summarise,
)
from benchmarks.evidence._report import read_results
from benchmarks.evidence._scoring import BY_LAYER, OF_HEAD, STAGE_SETS
from benchmarks.evidence._tasks import BANKS, OTHER_SUPPORTS, SUPPORT, TASKS
from skte.metrics import regret_at_k, weighted_kendall_score

__all__ = ["write_page"]

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = _ROOT / "docs" / "evidence.md"
_README = _ROOT / "README.md"
_FIGURE = _ROOT / "docs" / "images" / "evidence-scores.svg"
_PROBES = ("probe, threshold", "probe, dice", "probe, auc", "probe, best")
_SAMPLED = tuple(f"CrossCaseProbe, {reading}" for reading in ("threshold", "dice", "auc"))
_PAPER = {
    "LogME": "LogME|decoder",
    "TransRate": "TransRate|decoder",
    "LEEP": "LEEP",
    "GBC": "GBC|decoder",
    "CC-FV": "CCFV|decoder",
    "without C_cons": "CCFV without consistency|decoder",
    "without F_v": "CCFV without variety|decoder",
    "single scale": "CCFV|last",
    "KL divergence": "CCFV (KL)|decoder",
    "Bhattacharyya": "CCFV (Bhattacharyya)|decoder",
}
#: Rows of the table by target: each estimator as skte's default reads it, and the probes.
SHOWN = (
    *(f"{name}|all" for name in (*_PROBES, *_SAMPLED)),
    "probe, threshold|bottleneck+decoder",
    "probe, auc|bottleneck+decoder",
    *(f"{name}|decoder" for name in BY_LAYER if not name.startswith(("CCFV w", "CCFV ("))),
    "CCFV (literal)|decoder",
    "LogME|last",
    *OF_HEAD,
    *BASELINES,
)
#: What is combined in pairs, by the mean of ranks.
_COMBINED = (
    "CrossCaseProbe, auc|all", "CrossCaseProbe, dice|all", "KNN|decoder", "HScore|decoder",
    "LogME|decoder", "TransRate|decoder", "SFDA|decoder", "NLEEP|decoder", "CCFV|decoder",
    "LEEP", "NCE", "zero-shot Dice",
)  # fmt: skip
_OF_HEAD = (*OF_HEAD, "zero-shot Dice")
_FIRST_STAGES = (
    "CrossCaseProbe, threshold|all", "CrossCaseProbe, auc|all", "KNN|decoder", "HScore|decoder",
    "LogME|decoder",
)  # fmt: skip
_SIGNALS = ("CrossCaseProbe, auc|decoder", "KNN|decoder", "HScore|decoder", "LogME|decoder")

Tables = Mapping[bool, dict[str, Any]]


def write_page(folder: Path, page: Path = _PAGE, figure: Path = _FIGURE) -> None:
    """Fill the tables between the page's markers, and draw the figure."""
    banks = {name: read_results(folder, name) for name in BANKS}
    found = banks["ladder"]
    for target in found:
        _add_pairs(target)
    tables = {ladder: summarise(found, ladder) for ladder in (True, False)}
    parts = {
        "coverage": _coverage(banks),
        "by-target": _by_target(found, tables),
        "banks": _by_bank(banks),
        "stages": _stages(tables),
        "choice": _choice(tables),
        "intervals": _intervals(tables),
        "paper": _paper(found, tables),
        "cases": _cases(folder),
        "cost": _cost(found),
        "untrained": _untrained(found),
        "signals": _signals(found),
        "second-stage": _second_stage(found),
        "others": _others(_ROOT / "benchmarks"),
    }
    text = page.read_text()
    for name, part in parts.items():
        text = _filled(text, name, part)
    page.write_text(text)
    _README.write_text(_filled(_README.read_text(), "evidence", _readme(found, tables)))
    draw_scores(figure, _judged(found), [key for name, key in _PAPER.items() if " " not in name])


def _filled(text: str, name: str, part: str) -> str:
    """Text with a part between its two markers."""
    begin, end = (f"<!-- {word} {name} -->" for word in ("begin", "end"))
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{part}\n{end}{rest.split(end)[1]}"


def _readme(found: Sequence[Target], tables: Tables) -> str:
    """The table of the README: every estimator and baseline, by mean tau."""
    shown = {
        **{name: f"{name}|decoder" for name in BY_LAYER if "(" not in name and " " not in name},
        "CrossCaseProbe": "CrossCaseProbe, threshold|all",
        **{name: name for name in (*OF_HEAD, "static ranker", "source steps", "zero-shot Dice")},
    }
    means = {
        name: [tables[ladder][key]["mean"] for ladder in (True, False)]
        for name, key in shown.items()
    }
    rows = [
        [
            name,
            *(_number(mean["tau"]) for mean in pair),
            *(_number(100 * mean["regret@1"], 1) for mean in pair),
        ]
        for name, pair in sorted(means.items(), key=lambda item: -item[1][0]["tau"])
    ]
    losses = [
        np.mean([np.ptp(d) - np.mean(d - d.min()) for d in dice])
        for dice in (
            [target.dice[target.rows(ladder)] for target in _judged(found)]
            for ladder in (True, False)
        )
    ]
    rows.append(["*at random*", "0.00", "0.00", *(_number(100 * loss, 1) for loss in losses)])
    header = ["ranked by", "weighted Kendall", "without close relatives", "regret@1, Dice points"]
    return _table([*header, "without close relatives"], rows)


def _judged(found: Sequence[Target]) -> list[Target]:
    return [target for target in found if target.judged]


def _add_pairs(target: Target) -> None:
    ranks = {n: rankdata(target.scores[n]) for n in _COMBINED if n in target.scores}
    for a, b in combinations(ranks, 2):
        target.scores[f"{a} + {b}"] = (ranks[a] + ranks[b]).tolist()


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *map(list, rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _plain(name: str) -> str:
    return name.replace("|", ", ")


def _coverage(banks: Mapping[str, Sequence[Target]]) -> str:
    header = ["target", "bank", "sibling", "models", "collapsed runs", "Dice, worst to best"]
    header += ["tau of two runs", "ceiling", "judged"]
    rows = []
    for bank, found in banks.items():
        for target in found:
            agreement = target.repeatability()
            dice = 100 * target.dice
            rows.append(
                [
                    target.name,
                    bank,
                    TASKS[target.name].sibling,
                    f"{len(target.models)} of {target.n_bank}",
                    str(target.n_collapsed),
                    f"{dice.min():.1f} to {dice.max():.1f}",
                    _number(agreement["tau"]),
                    _number(agreement["ceiling"]),
                    "yes" if target.judged else "no",
                ]
            )
    return _table(header, rows)


def _by_target(found: Sequence[Target], tables: Tables) -> str:
    names = [target.name for target in _judged(found)]
    header = ["tau with the ladder", *names, "mean", "mean without the ladder", "Pearson"]
    header += ["regret@1", "regret@3", "within one point"]
    table, bare = tables[True], tables[False]
    shown = sorted((n for n in SHOWN if n in table), key=lambda n: -table[n]["mean"]["tau"])
    rows = []
    for name in shown:
        mean = table[name]["mean"]
        rows.append(
            [
                _plain(name),
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


def _by_bank(banks: Mapping[str, Sequence[Target]]) -> str:
    columns: dict[str, dict[str, Any]] = {}
    for bank, found in banks.items():
        n = len(_judged(found))
        if not n:
            continue
        columns[f"{bank} ({n} targets)"] = summarise(found, True)
        if any(not all(target.ladder) and any(target.ladder) for target in found):
            columns[f"{bank} without the ladder"] = summarise(found, False)
    shown = [name for name in SHOWN if any(name in table for table in columns.values())]
    order = {
        name: np.mean([t[name]["mean"]["tau"] for t in columns.values() if name in t])
        for name in shown
    }
    rows = []
    for name in sorted(shown, key=lambda name: -order[name]):
        means = [table[name]["mean"] if name in table else None for table in columns.values()]
        cells = [
            f"{m['tau']:.2f}, {100 * m['regret@1']:.1f}, {100 * m['within']:.0f} %" if m else ""
            for m in means
        ]
        rows.append([_plain(name), *cells])
    return _table(["tau, regret@1, first choice within one point", *columns], rows)


def _stages(tables: Tables) -> str:
    rows = []
    for name in (*_PROBES, *_SAMPLED, *BY_LAYER):
        cells = []
        for stages in STAGE_SETS:
            key = f"{name}|{stages}"
            means = [tables[ladder][key]["mean"]["tau"] for ladder in (True, False)]
            cells.append(" / ".join(map(_number, means)))
        rows.append([name, *cells])
    return _table(["mean tau, ladder / without", *STAGE_SETS], rows)


def _choice(tables: Tables) -> str:
    """What is best on other families, judged on the family left out."""

    def no_head(name: str) -> bool:
        return not any(head in name for head in _OF_HEAD)

    kinds: dict[str, Callable[[str], bool]] = {
        "any score": lambda name: " + " not in name and name != "short fine-tuning",
        "any score of features": lambda name: (
            no_head(name) and " + " not in name and name != "short fine-tuning"
        ),
        "a probe on the grid": lambda name: name.startswith("probe, "),
        "skte's CrossCaseProbe": lambda name: (
            name.startswith("CrossCaseProbe") and " + " not in name
        ),
        "a pair of scores": lambda name: " + " in name,
        "a pair of scores of features": lambda name: " + " in name and no_head(name),
        "published scores of features": lambda name: (
            no_head(name)
            and " + " not in name
            and name.split("|")[0] in BY_LAYER
            and not name.startswith("RCFV")
        ),
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
                    "; ".join(map(_plain, chosen)),
                ]
            )
    header = ["chosen among", "tau on families left out", "regret@1", "within one point"]
    return _table([*header, "what was chosen"], rows)


def _intervals(tables: Tables) -> str:
    """Differences between each score and the one whose mean is highest in its class."""
    best = {
        "scores of features": _best(tables[True], lambda n: not n.startswith(_OF_HEAD)),
        "scores": _best(tables[True], lambda n: True),
    }
    rows = []
    for other in (name for name in SHOWN if name in tables[True]):
        cells = [_plain(other)]
        for first in best.values():
            for with_ladder in (True, False):
                table = tables[with_ladder]
                if other == first:
                    cells.append("")
                    continue
                targets = list(table[first]["targets"])
                difference = [
                    table[first]["targets"][t]["tau"] - table[other]["targets"][t]["tau"]
                    for t in targets
                ]
                cells.append(_interval(difference, [TASKS[t].family for t in targets]))
        rows.append(cells)
    header = [
        f"{_plain(first)} {where} the ladder, less that of the row"
        for first in best.values()
        for where in ("with", "without")
    ]
    return _table(["", *header], rows)


def _best(table: Mapping[str, Any], allowed: Callable[[str], bool]) -> str:
    bounds = ("probe, best", *(b for b in BASELINES if b != "zero-shot Dice"))
    names = [n for n in SHOWN if n in table and allowed(n) and not n.startswith(bounds)]
    return max(names, key=lambda name: table[name]["mean"]["tau"])


def _paper(found: Sequence[Target], tables: Tables) -> str:
    """Tables 1 and 2 of the CC-FV paper on this bank: weighted Kendall / Pearson."""
    names = [target.name for target in _judged(found)]
    rows = []
    for label, key in _PAPER.items():
        by_target, mean = tables[True][key]["targets"], tables[True][key]["mean"]
        cells = [(by_target[n]["tau"], by_target[n]["pearson"]) for n in names]
        cells.append((mean["tau"], mean["pearson"]))
        rows.append([label, *(f"{_number(tau)} / {_number(r)}" for tau, r in cells)])
    return _table(["weighted Kendall / Pearson", *names, "mean"], rows)


def _cases(folder: Path) -> str:
    names = ["probe, auc|all", "probe, dice|all", "LogME|decoder", "HScore|decoder"]
    names += ["CCFV|decoder", "LEEP", "zero-shot Dice"]
    known = {n: read_results(folder, "ladder", n) for n in sorted((SUPPORT, *OTHER_SUPPORTS))}
    rows = []
    for n_cases, found in known.items():
        judged = [t for t in _judged(found) if t.name in BANKS["ladder"].with_other_supports]
        if not judged:
            continue
        table = summarise(judged, True)
        taus = [_number(table[n]["mean"]["tau"]) if n in table else "" for n in names]
        rows.append([str(n_cases), str(len(judged)), *taus])
    return _table(["labelled cases", "targets", *map(_plain, names)], rows)


def _cost(found: Sequence[Target]) -> str:
    names = dict.fromkeys(key for target in found for key in target.seconds)
    rows = [
        [_plain(name), _number(float(np.mean([t.seconds[name] for t in found])), 3)]
        for name in names
        if ("|" not in name or name.endswith("|all")) and all(name in t.seconds for t in found)
    ]
    return _table(["processor seconds for one model and five slices", "mean"], rows)


def _untrained(found: Sequence[Target]) -> str:
    """Mean place of the untrained networks, and how often one of them is first."""
    judged = _judged(found)
    rows = []
    for name in ("Dice after fine-tuning", *SHOWN):
        values = [
            target.dice if name.startswith("Dice") else target.scores.get(name) for target in judged
        ]
        known = [
            (target, np.array(row))
            for target, row in zip(judged, values, strict=True)
            if row is not None and len(set(row)) > 1
        ]
        if not known:
            continue
        places = [_place(target, row) for target, row in known]
        first = [t.models[int(row.argmax())].startswith("untrained") for t, row in known]
        rows.append(
            [_plain(name), _number(float(np.mean(places))), f"{sum(first)} of {len(first)}"]
        )
    header = [
        "ranked by",
        "mean place of the untrained (0 first, 1 last)",
        "first choice untrained",
    ]
    return _table(header, rows)


def _place(target: Target, values: Any) -> float:
    ranks = (-np.asarray(values)).argsort().argsort() / max(1, len(values) - 1)
    chosen = [name.startswith("untrained") for name in target.models]
    return float(ranks[chosen].mean()) if any(chosen) else float("nan")


def _signals(found: Sequence[Target]) -> str:
    """Signals without Dice against the tau that scores attain, over targets."""
    judged = _judged(found)
    signals: dict[str, list[float]] = {}
    for target in judged:
        rows = [np.array(target.scores[name]) for name in _SIGNALS]
        pairs = [weighted_kendall_score(a, b) for a in rows for b in rows if a is not b]
        probe = rows[0]
        untrained = np.array([name.startswith("untrained") for name in target.models])
        floor = probe[untrained].max() if untrained.any() else np.nan
        signals.setdefault("agreement of four scores", []).append(float(np.mean(pairs)))
        above = float((probe[~untrained] > floor).mean())
        signals.setdefault("share of models above the untrained", []).append(above)
        gap = float(probe.max() - floor)
        signals.setdefault("gap from leader to untrained", []).append(gap)
    taus = {
        name: [weighted_kendall_score(t.dice, np.array(t.scores[name])) for t in judged]
        for name in (*_SIGNALS, "zero-shot Dice")
    }
    rows_out = []
    for signal, values in signals.items():
        high = np.array(values) >= np.median(values)
        cells = []
        for tau in map(np.array, taus.values()):
            r = float(spearmanr(values, tau).statistic)
            cells.append(f"{r:.2f}: {tau[high].mean():.2f}, {tau[~high].mean():.2f}")
        rows_out.append(
            [signal, f"{min(values):.2f}, {np.median(values):.2f}, {max(values):.2f}", *cells]
        )
    header = ["signal", "least, median, largest", *map(_plain, taus)]
    return _table(header, rows_out)


def _second_stage(found: Sequence[Target]) -> str:
    """The first five of each first stage, reordered by twenty steps of fine-tuning."""
    rows = []
    for name in (*_FIRST_STAGES, "zero-shot Dice"):
        before, after = [], []
        for target in _judged(found):
            scores = np.array(target.scores[name])
            order = np.argsort(-scores, kind="stable")[:5]
            short = np.array(target.scores["short fine-tuning"])[order]
            again = np.argsort(-short, kind="stable")
            reordered = scores.copy()
            reordered[order[again]] = np.sort(scores[order])[::-1] + np.arange(5, 0, -1) * 1e-9
            before.append(100 * regret_at_k(target.dice, scores, 1))
            after.append(100 * regret_at_k(target.dice, reordered, 1))
        change = np.subtract(before, after)
        rows.append(
            [
                _plain(name),
                _number(float(np.mean(before)), 2),
                _number(float(np.mean(after)), 2),
                _interval(change, [target.family for target in _judged(found)]),
                f"{int((change > 0.005).sum())} / {int((change < -0.005).sum())}",
            ]
        )
    header = ["first stage", "regret@1", "regret@1 after the second stage", "gain"]
    return _table([*header, "targets better / worse"], rows)


def _others(benchmarks: Path) -> str:
    """Place of the best untrained network by each estimator, on banks of other benchmarks."""
    columns: dict[str, dict[str, str]] = {}
    published = json.loads((benchmarks / "deepbet/results/Task04_Hippocampus.json").read_text())
    columns["two published networks, hippocampus"] = {
        key: _best_untrained(
            {name: score for name, score in scores.items() if not name.startswith("untrained")},
            [score for name, score in scores.items() if name.startswith("untrained")],
        )
        for key, scores in published["scores"].items()
    }
    for title, file in {
        "real_bank, heart": "real_bank/results/Heart_ACDC.json",
        "real_bank, hippocampus": "real_bank/results/Task04_Hippocampus.json",
        "mixed_bank, hippocampus": "mixed_bank/results/Task04_Hippocampus.json",
    }.items():
        result = json.loads((benchmarks / file).read_text())
        columns[title] = {}
        for rows in (result["models"], result["recommended"]):
            for key in (name.removeprefix("score_") for name in rows[0] if "score_" in name):
                untrained = [r for r in rows if r.get("reference") or "untrained" in r["name"]]
                trained = {r["name"]: r[f"score_{key}"] for r in rows if r not in untrained}
                columns[title].setdefault(
                    key, _best_untrained(trained, [r[f"score_{key}"] for r in untrained])
                )
    keys = sorted({key for column in columns.values() for key in column})
    rows = [[key, *(column.get(key, "") for column in columns.values())] for key in keys]
    return _table(["place of the best untrained network among the trained", *columns], rows)


def _best_untrained(trained: Mapping[str, Any], untrained: Sequence[Any]) -> str:
    best = max(float(score) for score in untrained)
    place = 1 + sum(float(score) > best for score in trained.values())
    return f"{place} of {len(trained) + 1}"


def _interval(values: Any, families: Sequence[str]) -> str:
    found = interval_over_families(np.asarray(values), families)
    if found["low"] is None:
        return f"{found['mean']:+.2f}"
    return f"{found['mean']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"
