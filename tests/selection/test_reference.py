"""Untrained twins: which estimators tell training from chance, and which say so first."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from skte import (
    CCFV,
    LEEP,
    BankEntry,
    LogME,
    ModelBankSelector,
    SegmentationFeatureExtractor,
    TransferabilityEstimator,
)
from skte.bank import entry_digest
from skte.datasets import make_phantoms
from skte.demo import prepare_cases, small_unet, train_network
from skte.estimators import GBC, NCE, CrossCaseProbe, Ensemble
from skte.exceptions import BankError
from skte.report import next_step
from skte.selection import HalvingModelBankSelector

SIZE = (32, 32, 1)
WIDTHS = (8, 16)
LABEL_AWARE = {
    "logme": LogME(), "leep": LEEP(), "gbc": GBC(), "nce": NCE(), "probe": CrossCaseProbe(),
    "ensemble": Ensemble(),
}  # fmt: skip


def unet(seed):
    torch.manual_seed(seed)
    return small_unet(widths=WIDTHS, spatial_dims=2)


def entries(networks):
    return [
        BankEntry.from_module(name, network, preprocessing=["ZNormalization"])
        for name, network in networks.items()
    ]


@pytest.fixture(scope="module")
def networks():
    """Two networks trained on the target's kind of image, long and short, and an untrained one."""
    source = prepare_cases(make_phantoms(8, size=SIZE, random_state=5), (0, 1))
    found = {name: unet(1) for name in ("long", "short")}
    for (name, network), n_steps in zip(found.items(), (120, 30), strict=True):
        train_network(network, source, n_steps=n_steps, patch_size=(16, 16), batch_size=8)
        assert not network.training, name
    return found | {"fresh": unet(3)}


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(6, size=SIZE, random_state=9)


@pytest.fixture(scope="module")
def fitted(networks, cases):
    estimators = {"ccfv": CCFV(), **LABEL_AWARE}
    return ModelBankSelector(estimators).fit(entries(networks), cases)


def flagged(selector):
    return {one.estimator for one in selector.reference_ if not one.is_below}


@pytest.mark.slow
def test_a_trained_leader_of_label_aware_estimators_is_told_from_chance(fitted):
    assert flagged(fitted) == {"ccfv"}
    by_key = {one.estimator: one for one in fitted.reference_}
    assert all(by_key[key].leader == "long" for key in LABEL_AWARE)
    assert by_key["ccfv"].leader == "fresh"  # the failure that this is for


@pytest.mark.slow
def test_untrained_leaders_are_flagged_as_a_rule(cases):
    """One may be luckier than its twin, and by more than the cases vary."""
    estimators = {"ccfv": CCFV(), **LABEL_AWARE}
    found = [
        flagged(ModelBankSelector(estimators).fit(entries({"fresh": unet(seed)}), cases))
        for seed in range(3, 11)
    ]
    assert all(sum(key in one for one in found) >= 4 for key in estimators)


def test_the_answer_says_so_first(fitted):
    first, then, *_ = repr(fitted.ranking_).splitlines()
    (twin,) = {one.name for one in fitted.reference_}
    assert first == (
        f"No answer: ccfv cannot tell training from chance here: an {twin} does not score clearly "
        "below the leader."
    )
    assert "If you must choose, try long (1st of logme, " in then
    assert next_step(fitted, "short").splitlines()[:2] == [f"# {first}", f"# {then}"]
    assert fitted.results_["choice"].tolist()[0] == 1
    assert {text.startswith(first) for text in fitted.results_["no_answer"]} == {True}
    assert fitted.ranking_._repr_html_().startswith(f"<p>{first}</p>")
    one = next(one for one in fitted.reference_ if one.estimator == "leep")
    assert f" {one.score:.4g} by leep, " in fitted.answer_.notes[0]
    assert set(fitted.results_["untrained_twin"]) == {fitted.reference_[0].score}


def test_relative_scores_have_no_twin_beside_them(networks, cases):
    """With the twin the bank has one model more, and mean ranks are of another bank."""
    selector = ModelBankSelector(Ensemble()).fit(entries(networks), cases)
    assert selector.reference_
    assert np.isnan(selector.results_["untrained_twin"]).all()
    assert "(untrained twin)" not in selector.ranking_.header


def test_twins_are_no_candidates(fitted, networks, cases):
    assert sorted(fitted.ranking_) == sorted(networks)
    assert list(fitted.results_["name"]) == list(networks)
    without = ModelBankSelector(fitted.estimator, reference=False).fit(entries(networks), cases)
    assert without.reference_ == []
    for name in ("ccfv", "leep", "ensemble"):
        column = f"score_{name}"
        np.testing.assert_array_equal(fitted.results_[column], without.results_[column])
    assert "ntrained" not in repr(without.ranking_)
    assert len(pd.DataFrame(fitted.reference_)) == len(fitted.estimator)


@pytest.mark.slow
def test_one_twin_per_architecture_the_same_in_every_bank(networks, cases, fitted):
    torch.manual_seed(0)
    other = small_unet(widths=(4, 8), spatial_dims=2)
    bank = entries({"other": other, **dict(reversed(networks.items()))})
    extractor = SegmentationFeatureExtractor(layers="all", taper=False)  # as for the probe
    selector = ModelBankSelector(LogME(), extractor=extractor).fit(bank, cases)
    found = {one.models: one for one in selector.reference_}
    assert set(found) == {("other",), ("fresh", "short", "long")}
    alone = next(one for one in fitted.reference_ if one.estimator == "logme")
    twin = found[("fresh", "short", "long")]
    assert (twin.name, twin.score) == (alone.name, pytest.approx(alone.score, rel=1e-9))
    assert twin.estimator == "LogME"


@pytest.mark.slow
def test_recipes_are_built_anew_and_cached(tmp_path, networks, cases):
    bank = []
    for name in ("long", "short"):
        path = tmp_path / f"{name}.pt"
        torch.save(networks[name].state_dict(), path)
        widths = {"widths": WIDTHS} if name == "long" else {"widths": list(WIDTHS)}
        arguments = {"spatial_dims": 2, **widths}
        bank.append(BankEntry(name, "skte.demo:small_unet", arguments=arguments, weights=path))
    selector = ModelBankSelector(LogME(), cache=tmp_path / "cache")
    first = selector.fit(bank, cases).reference_
    assert [one.models for one in first] == [("long", "short")]  # two recipes of one structure
    twin, again = bank[0].untrained(), bank[1].untrained()
    assert entry_digest(twin) != entry_digest(bank[0])
    for one, other in zip(twin.load().parameters(), again.load().parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    n_files = len(list((tmp_path / "cache").rglob("*")))
    assert selector.fit(bank, cases).reference_ == first
    assert len(list((tmp_path / "cache").rglob("*"))) == n_files


class Plain(nn.Module):
    """Its own parameter cannot be made anew."""

    def __init__(self):
        super().__init__()
        self.up = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 2, 1)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.head(self.up(x) * self.scale)


def trained_by_itself():
    return unet(5)


def test_what_cannot_be_made_anew_is_said(cases):
    bank = {"plain": Plain(), "unet": unet(0)}
    selector = ModelBankSelector(LogME()).fit(bank, cases)
    problems = {one.models: one.problem for one in selector.reference_}
    assert problems[("plain",)] == "Entry 'plain': Plain has no reset_parameters()."
    assert problems[("unet",)] == ""
    assert "no untrained reference for plain: " in repr(selector.ranking_)
    with pytest.raises(
        BankError, match=r"'pretrained'.* its factory sets its own weights: see parameter 'enc"
    ):
        BankEntry("pretrained", trained_by_itself).untrained()


def test_networks_at_hand_stay_as_they_are(networks):
    network = networks["long"]
    before = [parameter.clone() for parameter in network.parameters()]
    twin = BankEntry.from_module("long", network).untrained()
    for now, then in zip(network.parameters(), before, strict=True):
        assert torch.equal(now, then)
    assert not torch.equal(twin.load().head.weight, network.head.weight)


class Fixed(TransferabilityEstimator):
    """Fails for untrained networks, whose features here are small."""

    def _score_block(self, block):
        if np.abs(block.X).max() < 1e3:
            raise ValueError("too small")
        return 1.0


def test_a_twin_that_fails_ends_no_run(cases):
    network = unet(0)
    with torch.no_grad():
        for parameter in network.decoder.parameters():
            parameter.mul_(1e5)
    selector = ModelBankSelector({"fixed": Fixed()}).fit({"large": network}, cases)
    (one,) = selector.reference_
    assert np.isnan(one.score)
    assert "too small" in one.problem
    assert one.is_below
    assert f"no untrained reference for large: {one.problem}" in repr(selector.ranking_)


class Flat(TransferabilityEstimator):
    """Scores everything alike."""

    def _score_block(self, block):
        return 1.0


def test_a_twin_that_equals_the_leader_is_not_below(cases):
    selector = ModelBankSelector({"flat": Flat()}).fit({"unet": unet(0)}, cases)
    (one,) = selector.reference_
    assert one.score == one.leader_score == 1.0
    assert not one.is_below


@pytest.mark.slow
def test_a_race_compares_its_last_rung(networks, cases):
    race = HalvingModelBankSelector(LogME(), min_cases=3).fit(entries(networks), cases)
    (one,) = race.reference_
    assert one.leader == race.best_name_ == "long"
    assert one.is_below
    untrained = entries({name: unet(seed) for seed, name in enumerate("abc")})
    race = HalvingModelBankSelector(CCFV(), min_cases=3).fit(untrained, cases)
    assert [one.is_below for one in race.reference_] == [False]
    assert repr(race.ranking_).startswith("No answer: CCFV cannot tell training from chance here")
    assert race.cost_ <= 1
    assert HalvingModelBankSelector(LogME(), reference=False).fit(untrained, cases).reference_ == []


def test_models_without_weights_are_marked(cases, tmp_path):
    arguments = {"spatial_dims": 2, "widths": WIDTHS}
    bank = [BankEntry("fresh", "skte.demo:small_unet", arguments=arguments)]
    selector = ModelBankSelector(LogME()).fit(bank, cases)
    assert selector.results_["untrained"].tolist() == [True]
    assert "fresh (untrained)" in repr(selector.ranking_)
    assert selector.ranking_[0] == "fresh"
    assert selector.answer_.choice[0] == (
        "No answer: LogME ranks an untrained network, fresh, first."
    )
