"""What a ranking says in sentences: one wording for terminal, notebook and report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skte._text import clean_lines
from skte.estimators import TransferabilityEstimator, recommended_estimators
from skte.metrics import rank_scores
from skte.selection._confidence import BankConfidence
from skte.selection._reference import Reference, chance_verdict, reference_notes

_FEW_CASES = 5
_SHORT_LIST = 3
_PLACES = {1: "1st", 2: "2nd", 3: "3rd"}
_MOST_NAMED = 5


class Studied(NamedTuple):
    """First choices on the 15 targets of the evidence page, with and without close relatives."""

    within_one_point: tuple[int, int]  # of 15, the first choice within one Dice point of the best
    regret_1: tuple[float, float]  # Dice points lost by fine-tuning the first alone
    regret_3: tuple[float, float]  # ... the best of the first three


#: By class and layers, with parameters as they are by default. A test compares these with
#: ``benchmarks/evidence/results``.
STUDIED = {
    ("CrossCaseProbe", "all"): Studied((4, 7), (3.6, 2.4), (1.1, 1.4)),
    ("LogME", "auto"): Studied((6, 3), (3.1, 4.2), (1.6, 2.0)),
    ("HScore", "auto"): Studied((5, 5), (4.2, 3.5), (1.8, 1.8)),
    ("KNN", "auto"): Studied((4, 6), (3.3, 2.8), (2.1, 1.9)),
    ("CCFV", "auto"): Studied((0, 1), (6.7, 4.7), (4.7, 3.2)),
}
N_TARGETS, N_MODELS = 15, 28


class Agreed(NamedTuple):
    """Agreement of the recommended estimators on the same targets, and what it went with."""

    median: float
    tau_above: float  # mean weighted Kendall of the first estimator with Dice
    tau_below: float


AGREED = Agreed(0.65, 0.44, 0.30)


@dataclass(frozen=True)
class Findings:
    """What a fitted selector knows, for `answer_of`."""

    order: Sequence[str]  # all models, best first
    # By estimator, in this order; NaN where a model failed. The first estimator ranks.
    scores: Mapping[str, NDArray[np.float64]]
    estimators: Mapping[str, TransferabilityEstimator]  # by the same keys
    layers: Any = "auto"  # what the extractor was told to read
    n_cases: int = 0
    untrained: Sequence[str] = ()  # models whose weights are random
    guessed: Sequence[str] = ()  # ... of whose layers it is not certain that they are maps
    raw_images: str = ""  # which models got images that look raw; empty where none did
    references: Sequence[Reference] = ()
    confidence: BankConfidence | None = None
    agreement: float = np.nan
    # By the first estimator, where its scores alone do not decide: in a race.
    ranks: NDArray[np.float64] | None = None
    copies: Sequence[str] = ()  # models that are the same network as one before them
    # By estimator: models whose features collapsed, or whose score is at the end of its range.
    void: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seen: Sequence[int] = ()  # of a race: cases that each model has seen
    not_understood: Sequence[str] = ()  # entries of the bank that could not be read

    def label(self, key: str) -> str:
        """Name of an estimator in sentences."""
        return key or type(self.estimators[key]).__name__

    def places(self, key: str) -> dict[str, int]:
        """Places of the models with a finite score, best first; equal scores share one."""
        scores = self.scores[key]
        is_first = key == next(iter(self.scores))
        ranks = self.ranks if is_first and self.ranks is not None else rank_scores(scores)
        best_first = [i for i in np.argsort(ranks, kind="stable") if np.isfinite(scores[i])]
        return {self.order[i]: int(ranks[i]) for i in best_first}

    def candidates(self, key: str) -> list[str]:
        """Models that an estimator can recommend, best first."""
        left_out = {*self.untrained, *self.copies, *self.void.get(key, ()), *self.by_chance(key)}
        return [name for name in self.places(key) if name not in left_out]

    def by_chance(self, key: str) -> list[str]:
        """Trained models that an estimator scores no higher than their untrained twins."""
        if self.estimators[key].tags.relative_to_bank:
            return []
        own = [one for one in self.references if one.estimator == self.label(key)]
        twins = {name: one.score for one in own for name in one.models}
        scores = dict(zip(self.order, self.scores[key].tolist(), strict=True))
        # Models that a race dropped were not scored on the cases of the twins.
        seen = dict(zip(self.order, self.seen, strict=False))
        compared = [n for n in self.places(key) if seen.get(n) == max(self.seen, default=None)]
        return [
            n for n in compared if n not in self.untrained and scores[n] <= twins.get(n, np.nan)
        ]

    def doubt(self, key: str) -> str:
        """Why the first choice of an estimator means nothing here; empty if it may."""
        who, places = self.label(key), self.places(key)
        top = [name for name, place in places.items() if place == 1]
        if not top:
            return f"{who} gives no model a finite score."
        for name in top:
            if name in self.untrained:
                return f"{who} ranks an untrained network, {name}, first."
            if name in self.void.get(key, ()):
                return (
                    f"{who} ranks {name} first, but its features collapsed or its score is at the "
                    "end of its range (see the warnings)."
                )
        if len(top) == len(places) > 1:
            return f"{who} gives all models the same score."
        return chance_verdict(self.references, who)

    def ties(self, key: str) -> list[list[str]]:
        """Different models that share a place, best first."""
        places = {n: place for n, place in self.places(key).items() if n not in self.copies}
        shared = ([n for n in places if places[n] == p] for p in dict.fromkeys(places.values()))
        return [names for names in shared if len(names) > 1]


@dataclass(frozen=True)
class Answer:
    """Sentences around a ranking.

    Attributes
    ----------
    choice : tuple of str
        What to fine-tune, or that there is no answer.
    no_answer : tuple of str
        The same where there is no answer, empty where there is one.
    doubts : tuple of str
        What speaks against it.
    certainty : tuple of str
        How sure it is: about these cases, and what is known about such scores in general.
    notes : tuple of str
        What untrained networks score.
    next_step : str
        What to do next; empty where there is no model to choose.
    short_list : tuple of str
        Up to three models to fine-tune, the first one first.
    """

    choice: tuple[str, ...] = ()
    no_answer: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    certainty: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    next_step: str = ""
    short_list: tuple[str, ...] = ()

    @property
    def above(self) -> tuple[str, ...]:
        """Sentences that belong before a table."""
        return (*self.choice, *self.doubts)

    @property
    def below(self) -> tuple[str, ...]:
        """Sentences that belong after it."""
        return (*self.certainty, *self.notes, *([self.next_step] if self.next_step else []))

    def around(self, *tables: str) -> str:
        """Return the sentences with tables in between, as text."""
        parts = ["\n".join(self.above), *tables, "\n".join(self.below)]
        return clean_lines("\n\n".join(part for part in parts if part))

    def around_html(self, *tables: str) -> str:
        """Return the sentences with tables in between, as HTML."""
        above, below = (
            "".join(f"<p>{escape(clean_lines(line))}</p>" for line in lines)
            for lines in (self.above, self.below)
        )
        return f"{above}{''.join(tables)}{below}"


def answer_of(found: Findings) -> Answer:
    """Turn findings into sentences."""
    first = next(iter(found.scores))
    doubts = {key: found.doubt(key) for key in found.scores}
    trusted = [key for key in found.scores if not doubts[key]]
    listed = _short_list(found, trusted)
    no_answer = _no_answer(found, doubts[first], trusted, listed)
    return Answer(
        choice=no_answer or _recommendation(found, trusted, listed),
        no_answer=no_answer,
        doubts=(
            *_ties(found, trusted, listed),
            *_others(found, doubts),
            *_disagreement(found),
            *_input(found),
        ),
        certainty=(
            *_about_cases(found),
            *([] if no_answer else [_in_general(found), *_agreement(found)]),
        ),
        notes=tuple(reference_notes(found.references)),
        next_step=_next_step(listed),
        short_list=tuple(listed),
    )


def _short_list(found: Findings, trusted: Sequence[str]) -> list[str]:
    """First three of the first estimator; where it has no answer, first choices of the others.

    On the targets of the evidence page, the first three of the probe lost less than the first
    choices of the three estimators (1.1 and 1.7 Dice points).
    """
    first = next(iter(found.scores))
    if first in trusted:
        return found.candidates(first)[:_SHORT_LIST]
    firsts = [n for key in trusted for n in found.candidates(key) if found.places(key)[n] == 1]
    return list(dict.fromkeys(firsts))[:_SHORT_LIST]


def _no_answer(
    found: Findings, doubt: str, trusted: Sequence[str], listed: Sequence[str]
) -> tuple[str, ...]:
    """Say that there is no answer, and what is left to go by; nothing where there is one."""
    first = next(iter(found.scores))
    places = found.places(first)
    if len(places) == 1 and not set(places) & set(found.untrained):
        only, who = next(iter(places)), found.label(first)
        return (f"No answer: only {only} has a score by {who}: there is nothing to compare.",)
    if not doubt:
        return ()
    if not trusted:
        again = "rank without a race" if found.seen else "label more cases and rank again"
        return (f"No answer: {doubt}", f"Choose by size, licence or speed, or {again}.")
    who = _joined([found.label(key) for key in trusted])
    verb = "does" if len(trusted) == 1 else "do"
    return (
        f"No answer: {doubt}",
        f"{who} {verb} not have this problem. If you must choose, try "
        f"{_with_reasons(found, listed, trusted)}.",
    )


def _recommendation(
    found: Findings, trusted: Sequence[str], listed: Sequence[str]
) -> tuple[str, ...]:
    places = found.places(trusted[0])
    line = f"Fine-tune {' or '.join(n for n in listed if places[n] == 1)} first."
    if len(listed) > 1:
        number = "two" if len(listed) == 2 else "three"
        line += f" If you can afford {number}: {_with_reasons(found, listed, trusted)}."
    return (line,)


def _ties(found: Findings, trusted: Sequence[str], listed: Sequence[str]) -> list[str]:
    """Say which models share a place on the short list, or with its last."""
    first = next(iter(found.scores))
    return [
        f"{_few(names)} tie by {found.label(key)}: choose between them by size, licence or speed."
        for key in ([first] if first in trusted else trusted)
        for names in found.ties(key)
        if set(names) & set(listed)
    ]


def _others(found: Findings, doubts: Mapping[str, str]) -> list[str]:
    """Doubts of the other estimators; those that cannot tell training from chance share one."""
    first, *others = doubts
    chance = {key: chance_verdict(found.references, found.label(key)) for key in doubts}
    fooled = [key for key in others if doubts[key] and doubts[key] == chance[key]]
    if len(fooled) < 2:
        return [doubts[key] for key in others if doubts[key]]
    who = _joined([found.label(key) for key in fooled])
    either = " either" if doubts[first] and doubts[first] == chance[first] else ""
    return [
        *(doubts[key] for key in others if doubts[key] and key not in fooled),
        f"{who} cannot tell training from chance here{either}: untrained networks do not score "
        "clearly below the models that they rank first.",
    ]


def _with_reasons(found: Findings, listed: Sequence[str], keys: Sequence[str]) -> str:
    """Name models with the place that estimators give them: their own, and first places."""
    first = keys[0]
    # Of the first estimator alone; what it cannot tell from its leader is no worse a choice.
    is_ranking = first == next(iter(found.scores))
    behind = found.confidence.behind() if found.confidence and is_ranking else []
    shown = []
    for name in listed:
        places: dict[int, list[str]] = {}
        for key in keys:
            place = found.places(key).get(name, 0)
            if place == 1 or (key == first and 0 < place <= _SHORT_LIST):
                places.setdefault(place, []).append(found.label(key))
        reasons = [f"{_PLACES[place]} of {_joined(who)}" for place, who in sorted(places.items())]
        reasons += ["clearly behind the first"] if name in behind else []
        shown.append(f"{name} ({', '.join(reasons)})")
    return ", ".join(shown)


def _disagreement(found: Findings) -> list[str]:
    if not found.agreement < AGREED.median:
        return []
    return [
        f"The estimators disagree: {found.agreement:.2f} on average (weighted Kendall; 1 is the "
        "same order, 0 chance). Trust none of them much, and fine-tune more than one model."
    ]


def _input(found: Findings) -> list[str]:
    """Warn of few cases, of models that were not read, and of images as none was trained on."""
    lines = []
    if found.not_understood:
        lines.append(f"Not ranked, because they could not be read: {_few(found.not_understood)}.")
    if 0 < found.n_cases < _FEW_CASES:
        lines.append(
            f"Only {found.n_cases} labelled cases: scores of features became better up to ten. "
            "Label more if you can."
        )
    if found.guessed:
        lines.append(
            f"The layers of {', '.join(found.guessed)} are a guess: look at them with skte inspect "
            "--bank, and name layers if they are wrong."
        )
    if found.raw_images:
        lines.append(found.raw_images)
    return lines


def _about_cases(found: Findings) -> list[str]:
    """Say what other cases of the same kind could have given."""
    first = next(iter(found.scores))
    who, chance = found.label(first), found.by_chance(first)
    lines = (
        [f"Scored no higher than their untrained twins by {who}: {_few(chance)}."] if chance else []
    )
    if len(found.places(first)) < 2:
        return lines
    if found.seen:
        n_fewest, n_most = min(found.seen), max(found.seen)
        if n_fewest < n_most:
            how = "Models that were dropped have seen fewer cases; their scores are of those alone."
        elif n_most < found.n_cases:
            how = f"The race was decided after {n_most} of {found.n_cases} cases."
        else:
            how = "The race dropped no model: all scores are of all cases."
        lines.append(
            f"{how} Ranking the short list without a race (ModelBankSelector; in the shell without "
            "--race) says what its cases cannot tell apart."
        )
        if n_fewest < n_most and len(found.estimators) > 1:
            lines.append(
                f"{who} decided the race; the other estimators "
                "score only the models of its last rung, and have no part in this answer."
            )
        return lines
    if found.confidence is None:
        return [
            *lines,
            "Which models these cases cannot tell apart was not computed: confidence_level=0.9 "
            "(--confidence 0.9) does.",
        ]
    behind = found.confidence.behind()
    lines.append(f"By {who}, {found.confidence.verdict()}")
    if behind and len(behind) < np.count_nonzero(found.confidence.groups) - 1:
        lines.append(f"Clearly behind {found.order[0]}: {', '.join(behind)}.")
    return lines


def _in_general(found: Findings) -> str:
    """Say how often first choices by this estimator were right where that is known."""
    key = next(iter(found.scores))
    estimator, who = found.estimators[key], found.label(key)
    layers = found.layers if isinstance(found.layers, str) else ""
    known = STUDIED.get((type(estimator).__name__, layers))
    if known is None or repr(estimator) != repr(type(estimator)()):
        return f"How often the first choice of {who} is right with these settings is not known."
    within, alone, three = known
    return (
        f"In general: on {N_TARGETS} targets with {N_MODELS} models each, the first choice of "
        f"{who} was within one Dice point of the best on {within[0]} ({within[1]} where the bank "
        f"held no close relative). Fine-tuning it alone lost {alone[0]} ({alone[1]}) points on "
        f"average, the best of its first three {three[0]} ({three[1]})."
    )


def _agreement(found: Findings) -> list[str]:
    if np.isnan(found.agreement):
        return []
    line = ""
    if found.agreement >= AGREED.median:
        line = (
            f"The estimators agree at {found.agreement:.2f} on average (weighted Kendall; 1 is "
            "the same order, 0 chance). "
        )
    if list(found.estimators) == list(recommended_estimators()) and found.layers == "all":
        line += (
            f"On those targets, the order agreed with Dice at {AGREED.tau_above:.2f} where these "
            f"estimators agreed at {AGREED.median} or more, at {AGREED.tau_below:.2f} elsewhere."
        )
    return [line.strip()] if line else []


def _next_step(listed: Sequence[str]) -> str:
    if not listed:
        return ""
    model = shlex.quote(listed[0])
    return (
        f"Next: skte next --bank BANK --model {model} (in Python: "
        "print(skte.report.next_step(selector))) shows how to start fine-tuning."
    )


def _few(names: Sequence[str]) -> str:
    """Name the first of many."""
    more = len(names) - _MOST_NAMED
    return _joined([*names[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])])


def _joined(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
