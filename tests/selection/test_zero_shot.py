"""The source head's own Dice, beside the scores."""

import numpy as np
import pytest
import torch
import torchio as tio
from sklearn.metrics import f1_score
from torch import nn

from skte import LEEP, BankEntry, LogME, ModelBank, ModelBankSelector, SegmentationFeatureExtractor
from skte.report import results_rows


def nearest(n_classes: int) -> nn.Module:
    """Predict the whole number that is nearest to the image: -(x - k)^2 is linear in x."""
    head = nn.Conv3d(1, n_classes, 1)
    k = torch.arange(n_classes, dtype=torch.float32)
    with torch.no_grad():
        head.weight.copy_(2 * k.reshape(-1, 1, 1, 1, 1))
        head.bias.copy_(-(k**2))
    return nn.Sequential(nn.Conv3d(1, 1, 1), head)


def identity(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[0].bias.zero_()
    return network


@pytest.fixture(scope="module")
def cases():
    """So few voxels of each class that all are drawn."""
    rng = np.random.default_rng(0)
    found = []
    for i, n in enumerate((75, 60, 45)):
        label = np.arange(n).reshape(5, -1, 3) % 3
        image = label + rng.normal(0, 0.5, label.shape)
        found.append(
            tio.Subject(
                image=tio.ScalarImage(tensor=torch.tensor(image[None], dtype=torch.float32)),
                label=tio.LabelMap(tensor=torch.tensor(label[None])),
                case_id=f"case{i}",
            )
        )
    return found


def rank(networks, cases, **params):
    extractor = SegmentationFeatureExtractor(layers=("0",), window_size=5, **params)
    bank = ModelBank.from_modules({k: identity(net) for k, net in networks.items()})
    # Behind named layers a pass ends, unless an estimator needs the head.
    estimators = {"logme": LogME(), "leep": LEEP()}
    return ModelBankSelector(
        estimators, extractor=extractor, reference=False, error_score=np.nan
    ).fit(bank, cases)


def test_it_is_the_dice_of_all_voxels_where_all_are_drawn(cases):
    selector = rank({"fits": nearest(3), "other": nearest(4)}, cases)
    labels, predicted = [], []
    for case in cases:
        labels.append(case["label"].data.numpy().ravel())
        predicted.append(np.clip(np.rint(case["image"].data.numpy().ravel()), 0, 2))
    truth = f1_score(np.concatenate(labels), np.concatenate(predicted), average=None)[1:].mean()
    fits, other = selector.results_["zero_shot"]
    assert 0.3 < truth < 0.95
    assert fits == pytest.approx(truth)
    assert np.isnan(other)
    assert {row["name"]: row["zero_shot"] for row in results_rows(selector.results_)} == {
        "fits": fits,
        "other": None,
    }
    assert "(zero-shot Dice)" in selector.ranking_.header
    assert str(round(truth, 3)) in repr(selector.ranking_)


def test_sampled_voxels_stand_for_those_that_are_not():
    rng = np.random.default_rng(1)
    label = np.zeros((40, 40, 40), dtype=int)
    label[10:20, 10:20, 10:20] = 1  # 1.6 % of the volume
    image = torch.tensor(label + rng.normal(0, 0.25, label.shape), dtype=torch.float32)
    case = tio.Subject(
        image=tio.ScalarImage(tensor=image[None]),
        label=tio.LabelMap(tensor=torch.tensor(label[None])),
    )
    other = tio.Subject(image=case["image"], label=case["label"], case_id="again")
    (found,) = rank({"net": nearest(2)}, [case, other]).results_["zero_shot"]
    truth = f1_score(label.ravel(), (image.numpy() > 0.5).ravel())
    balanced = 2 * 0.977 / (2 * 0.977 + 0.023 + 0.023)  # of as many voxels of either class
    assert truth < balanced - 0.2
    assert found == pytest.approx(truth, abs=0.1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.parametrize(
    ("networks", "params"),
    [
        ({"narrow": nearest(2), "wide": nearest(4)}, {}),
        ({"no background": nearest(3)}, {"samples": "foreground"}),
        ({"no head": nearest(3)}, {"source_head": False}),
    ],
)
def test_where_it_is_not_known_there_is_no_column(networks, params, cases):
    selector = rank(networks, cases, **params)
    assert np.isnan(selector.results_["zero_shot"]).all()
    assert "(zero-shot Dice)" not in selector.ranking_.header


def test_overlapping_regions_have_none(cases):
    """The most probable region is the outer one everywhere, although the head may be perfect."""
    entry = BankEntry.from_module("net", identity(nearest(2)), layers=("0",), activation="sigmoid")
    selector = ModelBankSelector(
        {"leep": LEEP()}, extractor=SegmentationFeatureExtractor(window_size=5), reference=False
    ).fit([entry], cases)
    assert np.isnan(selector.results_["zero_shot"]).all()
