"""
Add an estimator
================

To define your own score, write one method that maps the features of one layer to a number; higher
is better. The base class handles arrays, pipelines, layers, banks and intervals.
"""

# %%
# This one fits a ridge regression from features to classes on all cases but one, and scores its
# accuracy on that one. It measures whether a linear head would generalise to a new patient.

import numpy as np

from skte import TransferabilityEstimator


class LinearProbe(TransferabilityEstimator):
    """Mean accuracy, over classes and held-out cases, of a ridge regression."""

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def _score_block(self, block):
        classes, index = np.unique(block.y, return_inverse=True)
        X = np.column_stack([block.X, np.ones(len(block.X))])
        recalls = []
        for case in np.unique(block.groups):
            seen = block.groups != case
            A = X[seen].T @ X[seen] + self.alpha * np.eye(X.shape[1])
            weights = np.linalg.solve(A, X[seen].T @ np.eye(len(classes))[index[seen]])
            found = (X[~seen] @ weights).argmax(axis=1)
            recalls += [np.mean(found[index[~seen] == k] == k) for k in np.unique(index[~seen])]
        return float(np.mean(recalls))


# %%
# It works on arrays with one row per voxel, here with informative features and with noise:

rng = np.random.default_rng(0)
labels, groups = np.tile([0, 1], 120), np.repeat(np.arange(6), 40)
noise = rng.normal(size=(240, 5))
useful = noise + labels[:, None]
probe = LinearProbe()
print(f"useful {probe.score(useful, labels, groups=groups):.2f}", end=", ")
print(f"noise {probe.score(noise, labels, groups=groups):.2f}")

# %%
# It also ranks a bank, together with skte's own estimators:

import torch

from skte import CCFV, LogME, ModelBankSelector
from skte.datasets import make_phantoms
from skte.demo import prepare_cases, small_unet, train_network

source = prepare_cases(make_phantoms(12, task="lobes", size=(64, 64, 1)), (0, 1))


def trained(n_steps):
    torch.manual_seed(0)
    network = small_unet(spatial_dims=2)
    if n_steps:
        train_network(network, source, n_steps=n_steps, patch_size=(32, 32), batch_size=8)
    return network


bank = {"untrained": trained(0), "10 steps": trained(10), "100 steps": trained(100)}
cases = make_phantoms(6, task="shells", size=(64, 64, 1), random_state=5)
selector = ModelBankSelector({"probe": LinearProbe(), "ccfv": CCFV(), "logme": LogME()})
selector.fit(bank, cases)
selector.ranking_

# %%
# Scores of different estimators have different scales, but their orders can be compared:

for key in ("probe", "ccfv", "logme"):
    order = np.argsort(selector.results_[f"rank_{key}"])
    print(f"{key:6}", ", ".join(selector.names_[i] for i in order))

# %%
# Displays work as well; this one shows the layers, coarse to fine:

from skte.report import LayerScoreDisplay

layers = LayerScoreDisplay.from_selector(selector)

# %%
# To contribute an estimator to ``skte``, or to use it on the command line, see
# :doc:`../tutorials/add-estimator`.
