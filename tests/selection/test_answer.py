"""What a ranking says in sentences, and whether what it claims in general is what was measured."""

import dataclasses

import numpy as np
import pytest

from skte import CCFV, LogME
from skte.estimators import CrossCaseProbe, recommended_estimators
from skte.metrics import regret_at_k, weighted_kendall_score
from skte.selection import Reference
from skte.selection._answer import AGREED, STUDIED, Findings, answer_of  # no door: constants
from tests.selection.test_confidence import confidence, means_without

NAMES = ("a", "b", "c", "d")


def findings(scores=None, estimators=None, **more):
    """Four models in the order a, b, c, d, on ten cases, by default without anything to say."""
    scores = {"ccfv": [4, 3, 2, 1]} if scores is None else scores
    made = {"ccfv": CCFV(), "logme": LogME(), "probe": CrossCaseProbe()}
    return Findings(
        NAMES,
        {key: np.asarray(row, float) for key, row in scores.items()},
        estimators or {key: made[key] for key in scores},
        **{"n_cases": 10, **more},
    )


def twin(estimator, **more):
    return Reference(estimator, "untrained Net 1", NAMES, score=9.0, is_below=False, **more)


TWO = {"ccfv": [4, 3, 2, 1], "logme": [1, 4, 3, 2]}


def test_the_first_three_are_named_with_their_reasons():
    answer = answer_of(findings(TWO))
    assert answer.choice == (
        "Fine-tune a first. If you can afford three: a (1st of ccfv), b (1st of logme, 2nd of "
        "ccfv), c (3rd of ccfv).",
    )
    assert answer.short_list == ("a", "b", "c")
    assert answer.next_step.startswith("Next: skte next --bank BANK --model a ")


def test_what_is_clearly_behind_is_said_in_the_order_of_ranks():
    rng = np.random.default_rng(0)
    values = np.array([4, 3.9, 1, 0])[:, None] + 0.3 * rng.normal(size=(4, 10))
    scores, without = means_without(values)
    order = np.argsort(-scores)
    known = dataclasses.replace(confidence(scores[order], without[order]), names=NAMES)
    answer = answer_of(findings({"ccfv": scores[order]}, confidence=known))
    assert known.behind() == ["c", "d"]
    assert "b (2nd of ccfv), c (3rd of ccfv, clearly behind the first)." in answer.choice[0]
    assert "Clearly behind a: c, d." in answer.certainty
    assert answer.certainty[0] == f"By ccfv, {known.verdict()}"


def test_a_model_that_failed_is_not_one_of_the_others():
    values = np.array([4, 1, 0])[:, None] + 0.1 * np.random.default_rng(0).normal(size=(3, 10))
    scores, without = means_without(np.vstack([values, np.full((1, 10), np.nan)]))
    known = dataclasses.replace(confidence(scores, without), names=NAMES)
    (line, _) = answer_of(findings({"ccfv": scores}, confidence=known)).certainty
    assert line == "By ccfv, a is ahead of all others (at 90 % confidence, 10 cases)."


def test_two_models_are_no_three():
    found = dataclasses.replace(findings(), order=("a", "b"), scores={"ccfv": np.array([2.0, 1])})
    assert (
        answer_of(found)
        .choice[0]
        .endswith("If you can afford two: a (1st of ccfv), b (2nd of ccfv).")
    )


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (
            {"references": [twin("ccfv")]},
            "ccfv cannot tell training from chance here: an untrained ",
        ),
        ({"untrained": ["a"]}, "ccfv ranks an untrained network, a, first."),
        ({"scores": {"ccfv": [-np.inf] * 4}}, "ccfv gives no model a finite score."),
        ({"scores": {"ccfv": [1, np.nan, np.nan, np.nan]}}, "only a has a score by ccfv"),
        ({"scores": {"ccfv": [1, 1, 1, np.nan]}}, "ccfv gives all models the same score."),
    ],
)
def test_that_there_is_no_answer_is_said_first(more, why):
    answer = answer_of(findings(**more))
    assert answer.above[0].startswith(f"No answer: {why}")
    assert not any("Fine-tune" in line or "In general" in line for line in answer.above)
    assert not any("In general" in line for line in answer.below)


def test_what_other_estimators_say_is_left_where_the_first_has_no_answer():
    answer = answer_of(findings(TWO, references=[twin("ccfv")]))
    assert answer.choice[1] == (
        "logme does not have this problem. If you must choose, try b (1st of logme)."
    )
    assert answer.short_list == ("b",)


def test_estimators_that_cannot_tell_are_named_once():
    rows = {**TWO, "probe": [4, 3, 2, 1]}
    answer = answer_of(findings(rows, references=[twin("logme"), twin("probe")]))
    assert answer.doubts == (
        "logme and probe cannot tell training from chance here: untrained networks do not score "
        "clearly below the models that they rank first.",
    )
    assert "1st of ccfv)" in answer.choice[0]
    assert "logme" not in answer.choice[0]


def test_a_network_is_on_the_short_list_once():
    answer = answer_of(findings({"ccfv": [4, 4, 2, 1]}, copies=["b"]))
    assert answer.choice[0].startswith("Fine-tune a first. ")
    assert answer.short_list == ("a", "c", "d")
    assert answer.doubts == ()


def test_estimators_that_say_nothing_for_other_reasons_are_not_said_to_be_fooled():
    rows = {"ccfv": [1, 1, 1, 1], "logme": [2, 2, 2, 2], "probe": [3, 3, 3, 3]}
    answer = answer_of(findings(rows))
    assert answer.doubts == tuple(
        f"{k} gives all models the same score." for k in ("logme", "probe")
    )
    fooled = answer_of(findings(rows, references=[twin("logme"), twin("probe")]))
    assert fooled.doubts == answer.doubts


def test_models_that_score_no_higher_than_an_untrained_network_are_on_no_short_list():
    low = Reference("ccfv", "untrained x", ("a", "c"), score=1.5)
    high = Reference("ccfv", "untrained y", ("b", "d"), score=2.0)
    answer = answer_of(findings(references=[low, high]))  # ccfv gives 4, 3, 2, 1
    assert answer.short_list == ("a", "b", "c")
    assert answer.certainty[0] == "Scored no higher than their untrained twins by ccfv: d."
    higher = dataclasses.replace(low, score=2.0)
    assert answer_of(findings(references=[higher, high])).short_list == ("a", "b")
    assert answer.notes == ("Untrained networks of these architectures score 1.5 to 2 by ccfv.",)
    of_another = answer_of(findings(references=[dataclasses.replace(higher, estimator="logme")]))
    assert of_another.short_list == ("a", "b", "c")
    # A race scored c, which it dropped, on fewer cases than the twin.
    raced = answer_of(findings(references=[higher, high], seen=[6, 6, 3, 3]))
    assert raced.short_list == ("a", "b", "c")


def test_one_score_is_compared_with_nothing():
    values = np.vstack([np.random.default_rng(0).normal(size=(1, 10)), np.full((3, 10), np.nan)])
    scores, without = means_without(values)
    known = dataclasses.replace(confidence(scores, without), names=NAMES)
    answer = answer_of(findings({"ccfv": scores}, confidence=known))
    assert answer.choice == ("No answer: only a has a score by ccfv: there is nothing to compare.",)
    assert answer.certainty == ()


def test_models_that_could_not_be_read_are_named():
    answer = answer_of(findings(not_understood=[f"m{i}" for i in range(7)]))
    assert answer.doubts == (
        "Not ranked, because they could not be read: m0, m1, m2, m3, m4 and 2 more.",
    )


def test_untrained_networks_are_on_no_short_list():
    answer = answer_of(findings(untrained=["b"]))
    assert answer.short_list == ("a", "c", "d")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"n_cases": 3}, "Only 3 labelled cases"),
        ({"agreement": 0.1}, "The estimators disagree: 0.10 on average"),
        ({"raw_images": "No preprocessing for a."}, "No preprocessing for a."),
    ],
)
def test_what_speaks_against_it_stands_before_the_table(more, words):
    assert answer_of(findings()).doubts == ()
    (line,) = answer_of(findings(**more)).doubts
    assert line.startswith(words)


def test_what_no_estimator_has_is_said_once():
    references = [Reference(who, "", ("a",), problem="no.") for who in ("ccfv", "logme")]
    assert answer_of(findings(TWO, references=references)).notes == (
        "no untrained reference for a: no.",
    )
    one = dataclasses.replace(references[0], problem="other.")
    notes = answer_of(findings(TWO, references=[*references, one])).notes
    assert "no untrained reference for a by ccfv: other." in notes


def test_general_knowledge_is_of_defaults_alone():
    def general(estimator, layers):
        found = findings(estimators={"ccfv": estimator}, layers=layers)
        return next(line for line in answer_of(found).certainty if "first choice" in line)

    assert "within one Dice point of the best on 4 (7 " in general(CrossCaseProbe(), "all")
    for estimator, layers in ((CrossCaseProbe(), "auto"), (CCFV(feature_variety=False), "auto")):
        assert "not known" in general(estimator, layers)


def test_a_race_says_what_the_scores_of_dropped_models_are():
    (line, *_) = answer_of(findings(seen=[10, 10, 4, 4])).certainty
    assert line.startswith("Models that were dropped have seen fewer cases")
    estimators = {"ccfv": CCFV(), "logme": LogME()}
    (_, line, *_) = answer_of(findings(None, estimators, seen=[10, 10, 4, 4])).certainty
    assert line.startswith("ccfv decided the race; the other estimators")
    _, advice = answer_of(findings(seen=[10] * 4, references=[twin("ccfv")])).choice
    assert advice.endswith("or rank without a race.")


@pytest.mark.parametrize(
    ("seen", "words"),
    [(10, "The race dropped no model: all scores are of all cases."),
     (4, "The race was decided after 4 of 10 cases.")],
)  # fmt: skip
def test_a_race_in_which_all_models_saw_the_same_cases_speaks_of_none_that_saw_fewer(seen, words):
    estimators = {"ccfv": CCFV(), "logme": LogME()}
    lines = answer_of(findings(None, estimators, seen=[seen] * 4)).certainty
    assert lines[0].startswith(words)
    assert not any(
        "dropped have seen fewer" in line or "decided the race" in line for line in lines
    )


def test_models_of_equal_score_are_said_to_tie():
    answer = answer_of(findings({"ccfv": [4, 4, 2, 2], "logme": [1, 2, 3, 4]}))
    assert answer.choice[0].startswith(
        "Fine-tune a or b first. If you can afford three: a (1st of ccfv), b (1st of ccfv), c (3rd "
    )
    assert answer.doubts == tuple(
        f"{who} tie by ccfv: choose between them by size, licence or speed."
        for who in ("a and b", "c and d")
    )
    (line,) = answer_of(findings({"ccfv": [4, 3, 2, 1], "logme": [1, 1, 1, 1]})).doubts
    assert line == "logme gives all models the same score."
    assert answer_of(findings({"ccfv": [4, 3, 2, 1], "logme": [4, 1, 1, 1]})).doubts == ()


@pytest.mark.parametrize(
    ("more", "why"),
    [({"untrained": ["b"]}, "ranks an untrained network, b, first"),
     ({"void": {"ccfv": ["b"]}}, "ranks b first, but its features collapsed or its score is at")],
)  # fmt: skip
def test_a_tie_for_the_first_place_is_judged_by_all_who_share_it(more, why):
    answer = answer_of(findings({"ccfv": [4, 4, 2, 1]}, **more))
    assert answer.choice[0].startswith(f"No answer: ccfv {why}")


def test_what_an_estimator_gives_a_collapsed_model_recommends_it_nowhere():
    answer = answer_of(findings(TWO, void={"ccfv": ["b"]}))
    assert answer.short_list == ("a", "c", "d")
    assert answer_of(findings({"ccfv": [4, 3, -np.inf, np.nan]})).short_list == ("a", "b")


evidence = pytest.importorskip("benchmarks.evidence._report")
COLUMNS = {"auto": "{}|decoder", "all": "{}|all"}


@pytest.fixture(scope="module")
def targets():
    return evidence.read_results(evidence.RESULTS, "ladder")


def column(name, layers):
    reading = "CrossCaseProbe, threshold" if name == "CrossCaseProbe" else name
    return COLUMNS[layers].format(reading)


@pytest.mark.parametrize(("name", "layers"), STUDIED)
def test_what_is_said_in_general_is_what_was_measured(name, layers, targets):
    regrets = []
    for with_ladder in (True, False):
        for k in (1, 3):
            rows = [(t, t.rows(with_ladder)) for t in targets]
            scores = [np.array(t.scores[column(name, layers)])[kept] for t, kept in rows]
            regrets.append(
                [regret_at_k(t.dice[kept], s, k) for (t, kept), s in zip(rows, scores, strict=True)]
            )
    first, three, first_without, three_without = np.array(regrets)
    known = STUDIED[name, layers]
    within = tuple(int((row <= 0.01).sum()) for row in (first, first_without))
    assert known.within_one_point == within
    for told, rows in (
        (known.regret_1, (first, first_without)), (known.regret_3, (three, three_without)),
    ):  # fmt: skip
        assert told == pytest.approx([100 * row.mean() for row in rows], abs=0.051)


def test_what_agreement_is_worth_is_what_was_measured(targets):
    names = [column(type(one).__name__, "all") for one in recommended_estimators().values()]
    agreement, tau = [], []
    for target in targets:
        rows = [np.array(target.scores[name]) for name in names]
        pairs = [weighted_kendall_score(x, y) for x in rows for y in rows if x is not y]
        agreement.append(np.mean(pairs))
        tau.append(weighted_kendall_score(target.dice, rows[0]))
    above = np.array(agreement) >= np.median(agreement)
    found = (np.median(agreement), np.mean(np.array(tau)[above]), np.mean(np.array(tau)[~above]))
    assert tuple(AGREED) == pytest.approx(found, abs=0.0051)
