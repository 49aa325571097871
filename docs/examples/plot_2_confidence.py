"""
How sure is the order, and when to stop labelling
=================================================

A ranking depends on which cases were labelled. Resampling the cases shows which models cannot be
separated, a learning curve shows whether more cases would help, and a race spends forward passes
only on the contenders.
"""

# %%
# A bank of networks that were trained on three other tasks with two seeds each, and twelve cases
# of the target task.

import torch

from skte.datasets import make_phantoms
from skte.demo import prepare_cases, small_unet, train_network


def trained(task, seed):
    images = prepare_cases(make_phantoms(12, task=task, size=(64, 64, 1)), (0, 1))
    torch.manual_seed(seed)
    network = small_unet(spatial_dims=2, widths=(4, 8, 16))
    train_network(network, images, n_steps=60, patch_size=(32, 32), batch_size=8)
    return network


bank = {
    f"{task}, seed {seed}": trained(task, seed)
    for task in ("ellipsoids", "lobes", "texture")
    for seed in (0, 1)
}
cases = make_phantoms(12, task="shells", size=(64, 64, 1), random_state=3)

# %%
# Lines are 90 % intervals of the score. Group 1 contains the best model and all that these cases
# cannot separate from it. Differences between models are known more precisely than scores, because
# all models see the same voxels: models with overlapping intervals may still be separable.

from skte import LogME, ModelBankSelector
from skte.report import LearningCurveDisplay, RankingDisplay, StabilityDisplay

selector = ModelBankSelector(LogME(), confidence_level=0.9).fit(bank, cases)
selector.ranking_

# %%
display = RankingDisplay.from_selector(selector)

# %%
# Possible ranks, and how often each model comes first when the cases are resampled:

stability = StabilityDisplay(selector.confidence_).plot()

# %%
# Would more labels help? The bank is ranked on pairs of separate subsets of the cases, for subsets
# of several sizes. Once the rankings of both subsets agree, labelling can stop.

from skte.evaluation import rank_learning_curve

curve = rank_learning_curve(LogME(), bank, cases)
print(curve)

# %%
chart = LearningCurveDisplay(curve).plot()

# %%
# If only the best model matters, most models need not see most of the cases:

from skte.selection import HalvingModelBankSelector

race = HalvingModelBankSelector(LogME()).fit(bank, cases)
print(f"{race.best_name_} wins after {race.cost_:.0%} of the cases of all models")
print("cases of each rung:", race.n_resources_, "models:", race.n_candidates_)
