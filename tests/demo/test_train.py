"""Training and judging: the schedule learns, is repeatable, and Dice is Dice."""

import numpy as np
import pytest
import torch

from skte.datasets import make_phantoms
from skte.demo import (
    TrainingCase,
    load_body,
    mean_foreground_dice,
    prepare_cases,
    small_unet,
    train_network,
)


@pytest.fixture(scope="module")
def cases():
    return prepare_cases(make_phantoms(3, size=(32, 32, 1)), (0, 1))


def fresh(seed=0, **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return small_unet(widths=(4, 8), **{"spatial_dims": 2, **kwargs})


def train(network, cases, **kwargs):
    return train_network(
        network, cases, **{"n_steps": 60, "patch_size": (16, 16), "batch_size": 4, **kwargs}
    )


def test_prepared_cases_are_normalised_and_keep_their_labels():
    subjects = make_phantoms(2, size=(16, 16, 16), labels=(3, 7))
    for subject, case in zip(subjects, prepare_cases(subjects, (7, 3)), strict=True):
        assert case.image.mean().abs() < 1e-5
        assert case.image.std() == pytest.approx(1.0, abs=1e-4)
        label = subject["label"].data[0]
        assert torch.equal(case.target == 0, label == 7)
        assert torch.equal(case.target == 1, label == 3)


def test_labels_outside_the_classes_are_ignored():
    case = prepare_cases(make_phantoms(1, size=(16, 16, 16), labels=(0, 3)), (0, 5))[0]
    assert set(case.target.unique().tolist()) == {-100, 0}


def test_training_learns(cases):
    network = fresh()
    before = mean_foreground_dice(network, cases)
    losses = train(network, cases)
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert mean_foreground_dice(network, cases) > before + 0.1


def test_training_is_repeatable_and_depends_on_the_seed(cases):
    runs = [train(fresh(), cases, n_steps=5, random_state=s) for s in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_three_dimensional_patches_of_small_volumes_are_padded():
    cases = prepare_cases(make_phantoms(2, size=(16, 16, 8)), (0, 1))
    losses = train(fresh(spatial_dims=3), cases, n_steps=2, patch_size=16)
    assert np.isfinite(losses).all()


def test_body_is_loaded_and_head_stays():
    source, target = fresh(0, n_classes=5), fresh(1)
    head = target.head.weight.clone()
    load_body(target, source.state_dict())
    assert torch.equal(target.head.weight, head)
    body = dict(target.named_parameters())
    for name, value in source.named_parameters():
        if not name.startswith("head."):
            assert torch.equal(body[name], value)
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_body(target, small_unet(widths=(8, 16), spatial_dims=2).state_dict())


def test_dice_leaves_out_ignored_voxels_and_missing_classes():
    """Class 1 has an overlap of one of 1 + 2 voxels; class 2 is not in the case."""
    predicted = torch.tensor([1, 1, 0, 2, 1])
    target = torch.tensor([1, 0, 0, 0, -100]).reshape(5, 1, 1)
    logits = torch.nn.functional.one_hot(predicted, 3).T.reshape(3, 5, 1, 1).float()
    dice = mean_foreground_dice(torch.nn.Identity(), [TrainingCase(logits, target)])
    assert dice == pytest.approx(2 * 1 / (1 + 2))
