"""
See what was compared: voxels, layers, cases
============================================

Three plots to look at before you trust a ranking.
"""

# %%
# Six cases with two classes. The labels of one case are mirrored on purpose, as can happen when
# files of different tools are mixed.

import torch

from skte.datasets import make_phantoms
from skte.demo import prepare_cases, small_unet, train_network

cases = make_phantoms(
    6, task="ellipsoids", size=(48, 48, 16), spacing=(1, 1, 3), n_classes=3, random_state=4
)
label = cases[3]["label"]
label.set_data(label.data.flip(1))


def trained(n_steps, widths):
    torch.manual_seed(0)
    network = small_unet(n_classes=3, widths=widths)
    if n_steps:
        images = make_phantoms(8, task="lobes", size=(32, 32, 16), n_classes=3)
        train_network(network, prepare_cases(images, (0, 1, 2)), n_steps=n_steps)
    return network


bank = {
    "narrow": trained(60, (4, 8, 16)),
    "wide": trained(60, (8, 16, 32)),
    "untrained": trained(0, (4, 8, 16)),
}

# %%
# **Voxels.** They are the same for every model: some of each class, and some from the whole case
# for the variety of features. The outlines should lie on the structures. In this case they do not:

from skte import CCFV, ModelBankSelector, SegmentationFeatureExtractor
from skte.report import CaseDistanceDisplay, LayerScoreDisplay, SampledVoxelsDisplay

voxels = SampledVoxelsDisplay.from_case(SegmentationFeatureExtractor(), cases[3])

# %%
# **Layers.** Scores of the decoder's layers, coarse to fine. The model's score is their mean.

selector = ModelBankSelector(CCFV()).fit(bank, cases)
layers = LayerScoreDisplay.from_selector(selector)

# %%
# **Cases.** The distance of each case's features of a class from those of the other cases, as
# measured by CC-FV in the trained narrow network. If a case is far from all others, check its
# label.

from skte import BankEntry

extractor = SegmentationFeatureExtractor(BankEntry.from_module("narrow", bank["narrow"]))
estimator = CCFV().fit(extractor.fit_transform(cases))
distances = CaseDistanceDisplay.from_estimator(estimator)

# %%
# ``diagnose()`` describes what stands out:

print(estimator.diagnose())
