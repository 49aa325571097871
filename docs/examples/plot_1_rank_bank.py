"""
Rank a bank, then check the ranking
===================================

Six small networks were pre-trained on different tasks, or not at all. Which one should be
fine-tuned for a new task? ``skte`` ranks them without training. To check the ranking, we then
fine-tune all of them.
"""

# %%
# The target task is to segment dark, wavy sheets in noisy 2-D images. Eight cases are labelled,
# and eight others are kept for testing.

import torch

from skte.datasets import make_phantoms

cases = make_phantoms(8, task="sheets", size=(64, 64, 1), random_state=1)
test_cases = make_phantoms(8, task="sheets", size=(64, 64, 1), random_state=2)
cases

# %%
# Pre-train the bank with the small training loop of the demo, ``prepare_cases`` and
# ``train_network``. Your own models are already trained.

from skte.demo import load_body, mean_foreground_dice, prepare_cases, small_unet, train_network


def fresh(seed=0):
    torch.manual_seed(seed)
    return small_unet(spatial_dims=2)


def pretrain(task, n_steps):
    network = fresh()
    images = prepare_cases(make_phantoms(12, task=task, size=(64, 64, 1)), (0, 1))
    train_network(network, images, n_steps=n_steps, patch_size=(32, 32), batch_size=8)
    return network


bank = {
    "ellipsoids": pretrain("ellipsoids", 100),
    "ellipsoids, short": pretrain("ellipsoids", 20),
    "lobes": pretrain("lobes", 100),
    "shells": pretrain("shells", 100),
    "tubes": pretrain("tubes", 100),
    "untrained": fresh(),
}

# %%
# Rank the bank. Every network runs once over the eight cases, and both estimators use the same
# features. The first one ranks; ``confidence_level`` adds intervals and groups.

from skte import CCFV, LogME, ModelBankSelector

selector = ModelBankSelector({"ccfv": CCFV(), "logme": LogME()}, confidence_level=0.9)
selector.fit(bank, cases)
selector.ranking_

# %%
from skte.report import RankingDisplay

ranking = RankingDisplay.from_selector(selector)

# %%
# Now fine-tune every network on the labelled cases, which a ranking is meant to avoid, and
# measure the Dice on the test cases.

train, test = prepare_cases(cases, (0, 1)), prepare_cases(test_cases, (0, 1))


def fine_tune(source):
    network = fresh(seed=1)
    load_body(network, source.state_dict())
    train_network(network, train, n_steps=25, learning_rate=1e-3, patch_size=(32, 32), batch_size=8)
    return mean_foreground_dice(network, test)


dice = {name: fine_tune(network) for name, network in bank.items()}
for name in dice:
    print(f"{name:20}{dice[name]:.3f}")

# %%
# Compare scores and Dice. With six models a random order often looks good, so the title gives the
# number of models and the p-value of a permutation test.

from skte.report import CorrelationDisplay

agreement = CorrelationDisplay.from_scores(
    dice, selector.scores_, selector.names_, score_name="CCFV", performance_name="Dice"
)

# %%
# CC-FV rewards features that are diverse and alike in every case, and those of an untrained network
# can be both: see where it is ranked here. A second estimator is a useful check. It has scored the
# same features, without running the networks again:

second = CorrelationDisplay.from_scores(
    dice,
    selector.results_["score_logme"],
    selector.names_,
    score_name="LogME",
    performance_name="Dice",
)

# %%
# Toy data show how to rank, not how well it works: that takes real images and more models, see
# :doc:`../evidence`.
