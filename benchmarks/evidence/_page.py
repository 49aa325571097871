"""The evidence page and README's key figures, from the result files alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence._cost import of_bank
from benchmarks.evidence._figures import draw_embedding, draw_scores
from benchmarks.evidence._judge import Target, Verdict, judge, last_if_missing, tau
from benchmarks.evidence._search import Search, choose
from benchmarks.evidence._tables import baseline_scores, markdown, summary_rows, verdicts

__all__ = ["write_page"]

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_README = _DOCS.parent / "README.md"
_PROSE = Path(__file__).with_name("evidence.md.in")
_PLOTTED = ("CCFV", "LogME", "LEEP", "GBC", "TransRate")
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def write_page(
    results: Sequence[dict[str, Any]],
    seconds: Mapping[str, Any],
    docs: Path = _DOCS,
    readme: Path = _README,
) -> None:
    """Fill the page's prose with tables, draw its figures, and update README's table."""
    targets = [Target.from_result(result) for result in results]
    search = choose(targets, [result["terms"] for result in results])
    parts = {
        "protocol": _protocol(results[0]),
        "noise": _noise(targets),
        "table1": _table1(targets, results),
        "table2": _table2(targets, results),
        "variants": _variants(targets, results),
        "cost": _cost(targets, seconds),
        "search": _search(search),
        "candidates": _candidates(search),
        "top": _top(targets, results),
        "settings": _settings(targets, results),
        **_held_out(search, targets, results),
        "provenance": _provenance(results),
    }
    prose = _PROSE.read_text()
    page = _PLACE.sub(lambda match: parts[match[1]], prose)
    (docs / "evidence.md").write_text(page)
    images = docs / "images"
    shown = [name for name in (*_PLOTTED, *_contenders(results)) if name in results[0]["scores"]]
    draw_scores(images / "evidence-scores.svg", targets, [r["scores"] for r in results], shown)
    draw_embedding(images / "evidence-embedding.svg", results[0]["embedding"])
    _fill(readme, "evidence", _key_figures(targets, results))


def _contenders(results: Sequence[dict[str, Any]]) -> list[str]:
    known = {"CCFV", "LogME", "CCFV raw"}
    names = {key.split(": ")[1] for key in results[0]["variants"]}
    return sorted(names - known)


def _protocol(result: Mapping[str, Any]) -> str:
    study = result["study"]
    rows = [
        ["cases to pre-train on, of each source", str(study["n_pretrain_cases"])],
        ["target cases to fine-tune and rank on", str(study["n_tune_cases"])],
        ["target cases to test on", str(study["n_test_cases"])],
        ["steps of pre-training, long and short", f"{study['long']}, {study['short']}"],
        ["steps of fine-tuning", str(study["tune_steps"])],
        ["fine-tuning seeds", str(len(study["seeds"]))],
        ["patch and window, voxels", " x ".join(map(str, study["patch"]))],
        ["patches in a step", str(study["batch_size"])],
        ["models of each target", str(len(result["models"]))],
    ]
    return markdown(["", ""], rows)


def _noise(targets: Sequence[Target]) -> str:
    rows = []
    for target in targets:
        by_model = 100 * target.performance
        rows.append(
            [
                target.name,
                f"{target.seed_tau():.2f}",
                f"{target.ceiling():.2f}",
                f"{target.ceiling(within=True):.2f}",
                f"{by_model.min():.1f} to {by_model.max():.1f}",
                f"{100 * target.seed_error():.1f}",
                target.models[int(by_model.argmax())]["name"],
            ]
        )
    means = (
        _mean(t.seed_tau() for t in targets),
        _mean(t.ceiling() for t in targets),
        _mean(t.ceiling(within=True) for t in targets),
    )
    rows.append(["mean", *(f"**{value:.2f}**" for value in means), "", "", ""])
    head = [
        "target",
        "tau of two seeds",
        "tau that true Dice would reach",
        "within architectures",
        "Dice, worst to best",
        "error of a mean Dice",
        "best model",
    ]
    return markdown(head, rows)


def _head(targets: Sequence[Target]) -> list[str]:
    names = [target.name for target in targets]
    extra = ["mean", "95 % of mean tau", "p", "regret@1", "regret@3", "within"]
    return ["", *names, *extra]


def _with_baselines(
    targets: Sequence[Target], results: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    found = []
    for target, result in zip(targets, results, strict=True):
        channels = result["terms"][str(target.n_tune_cases)]["channels"]
        baselines = baseline_scores(target, channels)
        extra = {name: {"scores": s} for name, s in baselines.items()}
        found.append({**result["scores"], **extra})
    return found


def _table1(targets: Sequence[Target], results: Sequence[Mapping[str, Any]]) -> str:
    scores = _with_baselines(targets, results)
    found = verdicts(targets, scores, scores[0])
    return markdown(_head(targets), summary_rows(targets, scores, found))


def _table2(targets: Sequence[Target], results: Sequence[Mapping[str, Any]]) -> str:
    scores = [result["ablation"] for result in results]
    found = verdicts(targets, scores, scores[0])
    return markdown(_head(targets), summary_rows(targets, scores, found))


def _variants(targets: Sequence[Target], results: Sequence[Mapping[str, Any]]) -> str:
    keys = list(results[0]["variants"])
    settings = list(dict.fromkeys(key.split(": ")[0] for key in keys))
    names = list(dict.fromkeys(key.split(": ")[1] for key in keys))
    rows = []
    for setting in settings:
        cells = []
        for name in names:
            taus = [
                tau(target.performance, last_if_missing(result["variants"][f"{setting}: {name}"]))
                for target, result in zip(targets, results, strict=True)
            ]
            cells.append(f"{np.mean(taus):.2f}")
        rows.append([setting, *cells])
    return markdown(["setting", *names], rows)


def _cost(targets: Sequence[Target], seconds: Mapping[str, Any]) -> str:
    rows = []
    for target in targets:
        ranked, tuned = of_bank(seconds[target.name], target.models)
        rows.append(
            [target.name, f"{ranked / 60:.1f}", f"{tuned / 60:.1f}", f"{tuned / ranked:.0f}"]
        )
    head = ["target", "rank all, minutes", "fine-tune all once, minutes", "ratio"]
    return markdown(head, rows)


def _search(search: Search) -> str:
    rows = [
        [choice.target, choice.candidate, *_figures_of([choice.held_out])]
        for choice in search.choices
    ]
    rows.append(["mean", "", *_figures_of([choice.held_out for choice in search.choices])])
    head = ["target", "chosen on the others", "tau here", "Pearson", "regret@1", "within"]
    return markdown(head, rows)


def _settings(targets: Sequence[Target], results: Sequence[Mapping[str, Any]]) -> str:
    """CC-FV on the sphere or raw, over how many layers: chosen for each target on the others."""
    keys = [
        f"{layers}: {name}"
        for layers in ("last layer", "last two layers", "all layers")
        for name in ("CCFV", "CCFV raw")
    ]
    found = {
        key: [judge(t, r["variants"][key]) for t, r in zip(targets, results, strict=True)]
        for key in keys
    }
    rows = []
    chosen = []
    for i, target in enumerate(targets):
        others = [j for j in range(len(targets)) if j != i]
        best = max(keys, key=lambda key: _mean(found[key][j].tau for j in others))
        chosen.append(found[best][i])
        rows.append([target.name, best, *_figures_of([found[best][i]])])
    rows.append(["mean", "", *_figures_of(chosen)])
    rows.append(
        ["mean of the default", "all layers: CCFV", *_figures_of(found["all layers: CCFV"])]
    )
    head = ["target", "chosen on the others", "tau here", "Pearson", "regret@1", "within"]
    return markdown(head, rows)


def _figures_of(found: Sequence[Verdict]) -> list[str]:
    return [
        f"{_mean(v.tau for v in found):.2f}",
        f"{_mean(v.pearson for v in found):.2f}",
        f"{_mean(v.regret_1 for v in found):.1f}",
        f"{_mean(v.within for v in found):.2f}",
    ]


def _held_out(
    search: Search, targets: Sequence[Target], results: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """What the search is worth beside CC-FV."""
    held = [choice.held_out for choice in search.choices]
    own = verdicts(targets, [r["scores"] for r in results], ["CCFV"])["CCFV"]
    tau_held, tau_own = _mean(v.tau for v in held), _mean(v.tau for v in own)
    return {
        "n_candidates": str(len(search.taus)),
        "held_tau": f"{tau_held:.2f}",
        "held_pearson": f"{_mean(v.pearson for v in held):.2f}",
        "ccfv_tau": f"{tau_own:.2f}",
        "ccfv_pearson": f"{_mean(v.pearson for v in own):.2f}",
        "gain": f"{100 * (tau_held / tau_own - 1):.0f}",
    }


def _candidates(search: Search, n_shown: int = 8) -> str:
    """The best ones, and those that CC-FV is made of."""
    order = sorted(search.taus, key=lambda name: -search.taus[name])
    own = ["F_v, mean + 1 / C_cons, mean", "F_v, mean", "1 / C_cons, mean", "B / W, raw, last"]
    shown = [*order[:n_shown], *(name for name in own if name not in order[:n_shown])]
    rows = [[str(order.index(n) + 1), n, f"{search.taus[n]:.2f}"] for n in shown]
    return markdown([f"place of {len(order)}", "candidate", "mean tau"], rows)


def _top(targets: Sequence[Target], results: Sequence[Mapping[str, Any]]) -> str:
    """Where each estimator puts the untrained networks, 1 for the top of the list."""
    rows = []
    for name in results[0]["scores"]:
        cells = []
        for target, result in zip(targets, results, strict=True):
            values = last_if_missing(result["scores"][name]["scores"])
            ranks = (-values).argsort(kind="stable").argsort(kind="stable") + 1
            best = [r for r, m in zip(ranks, target.models, strict=True) if m["source"] is None]
            cells.append(str(min(best)))
        rows.append([name, *cells])
    by_dice = []
    for target in targets:
        ranks = (-target.performance).argsort().argsort() + 1
        best = [r for r, m in zip(ranks, target.models, strict=True) if m["source"] is None]
        by_dice.append(str(min(best)))
    rows.insert(0, ["**Dice**", *by_dice])
    return markdown(["", *(target.name for target in targets)], rows)


def _key_figures(targets: Sequence[Target], results: Sequence[Mapping[str, Any]]) -> str:
    scores = _with_baselines(targets, results)
    found = verdicts(targets, scores, scores[0])
    order = sorted(found, key=lambda name: -_mean(v.tau for v in found[name]))
    rows = [
        [
            name,
            f"{_mean(v.tau for v in found[name]):.2f}",
            f"{_mean(v.pearson for v in found[name]):.2f}",
            f"{_mean(v.regret_1 for v in found[name]):.1f}",
        ]
        for name in order
    ]
    if "RCFV" in found:  # chosen on these targets: what it does on others is another figure
        held = [c.held_out for c in choose(targets, [r["terms"] for r in results]).choices]
        rows = [row for row in rows if row[0] != "RCFV"]
        rows.append(
            [
                "what RCFV comes from, each target held out",
                f"{_mean(v.tau for v in held):.2f}",
                f"{_mean(v.pearson for v in held):.2f}",
                f"{_mean(v.regret_1 for v in held):.1f}",
            ]
        )
        rows.sort(key=lambda row: -float(row[1]))
    noise = float(np.mean([target.ceiling() for target in targets]))
    rows.insert(0, ["*the true Dice, were it known*", f"{noise:.2f}", "", ""])
    return markdown(["ranked by", "weighted Kendall", "Pearson", "regret@1, Dice points"], rows)


def _provenance(results: Sequence[Mapping[str, Any]]) -> str:
    one = results[0]
    versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
    devices = sorted({model["device"] for result in results for model in result["models"]})
    return f"Python {one['python']}, {versions}; {', '.join(devices)}, {one['cores']} cores."


def _fill(path: Path, name: str, text: str) -> None:
    """Replace what stands between two marks of a file."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    whole = path.read_text()
    if begin not in whole:
        return
    before, rest = whole.split(begin, 1)
    after = rest.split(end, 1)[1]
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
