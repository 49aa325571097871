import numpy as np
import pytest
import torch

from skte.datasets import PHANTOM_TASKS, check_dataset, make_phantoms, read_case
from skte.exceptions import DatasetError

SIZE = (20, 18, 16)


def best_threshold_dice(image, foreground):
    scores = []
    for threshold in np.percentile(image, np.linspace(1, 99, 50)):
        for guess in (image > threshold, image < threshold):
            scores.append(2 * (guess & foreground).sum() / (guess.sum() + foreground.sum()))
    return max(scores)


@pytest.mark.parametrize("task", PHANTOM_TASKS)
@pytest.mark.parametrize("size", [SIZE, (32, 24, 1)])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_every_case_is_usable_and_has_every_class(task, size, n_classes):
    subjects = make_phantoms(3, task=task, size=size, n_classes=n_classes)
    assert check_dataset(subjects) == []
    for subject in subjects:
        case = read_case(subject)
        assert case.image.dtype == torch.float32
        assert tuple(case.image.shape) == (1, *size)
        counts = torch.bincount(case.label.ravel(), minlength=n_classes)
        assert len(counts) == n_classes
        assert counts.min() >= 4
        assert counts[0] > counts.sum() / 10


@pytest.mark.parametrize("task", PHANTOM_TASKS)
def test_case_depends_on_seed_task_and_position_alone(task):
    few = make_phantoms(1, task=task, size=SIZE)
    many = make_phantoms(3, task=task, size=SIZE, n_channels=2)
    other = make_phantoms(1, task=task, size=SIZE, random_state=1)
    assert torch.equal(few[0]["image"].data, many[0]["image"].data[:1])
    assert torch.equal(few[0]["label"].data, many[0]["label"].data)
    assert not torch.equal(few[0]["label"].data, other[0]["label"].data)
    assert not torch.equal(many[0]["label"].data, many[1]["label"].data)
    torch.manual_seed(5)
    again = make_phantoms(1, task=task, size=SIZE)
    assert torch.equal(few[0]["image"].data, again[0]["image"].data)
    assert torch.initial_seed() == 5  # global random states are left alone


@pytest.mark.slow
@pytest.mark.parametrize("task", PHANTOM_TASKS)
def test_a_threshold_does_not_do(task):
    dice = []
    for subject in make_phantoms(4, task=task, size=(32, 32, 32)):
        case = read_case(subject)
        dice.append(best_threshold_dice(case.image[0].numpy(), case.label.numpy() > 0))
    assert np.mean(dice) < 0.9


def test_textures_differ_in_pattern_rather_than_mean():
    roughness = []
    for subject in make_phantoms(6, task="texture", size=(32, 32, 32), noise=0):
        case = read_case(subject)
        image, inside = case.image[0].double(), case.label == 1
        image = (image - image.mean()) / image.std()
        assert abs(image[inside].mean() - image[~inside].mean()) < 1
        step = (image[1:] - image[:-1]).square()
        roughness.append(float(step[inside[1:]].mean() / step[~inside[1:]].mean()))
    assert min(roughness) > 1.5


def test_labels_channels_spacing_and_names():
    (subject,) = make_phantoms(
        1, task="lobes", size=SIZE, labels=(0, 2, 7), n_channels=2, spacing=(1, 2, 3)
    )
    case = read_case(subject)
    assert case.label.unique().tolist() == [0, 2, 7]
    assert case.label_names == {0: "background", 2: "lobes 1", 7: "lobes 2"}
    assert case.image.shape[0] == 2
    assert case.spacing == (1, 2, 3)
    assert case.case_id == "lobes_000"


def test_noise():
    quiet, loud = (
        read_case(make_phantoms(1, size=SIZE, noise=noise)[0]).image[0].double()
        for noise in (0.0, 1.0)
    )

    def roughness(image):
        return (image[1:] - image[:-1]).var() / image.var()

    assert roughness(loud) > 3 * roughness(quiet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "hearts"}, "task='hearts' is not one of"),
        ({"n_cases": 0}, "n_cases=0"),
        ({"n_cases": 1.5}, r"n_cases=1\.5"),
        ({"n_channels": 0}, "n_channels=0"),
        ({"n_classes": 1}, "n_classes=1"),
        ({"random_state": -1}, "random_state=-1"),
        ({"labels": (0,)}, "two or more distinct"),
        ({"labels": (0, 2, 2)}, "two or more distinct"),
        ({"labels": (0, -2)}, "two or more distinct"),
        ({"labels": (0, 2, 7), "n_classes": 4}, "does not agree"),
        ({"noise": -1}, "noise=-1"),
        ({"size": (16, 16)}, "three edges"),
        ({"size": (16, 16, 2)}, "at least 8 voxels"),
        ({"size": (1, 16, 16)}, "at least 8 voxels"),
        ({"spacing": (1, 1)}, "three positive sizes"),
        ({"spacing": (1, 1, 0)}, "three positive sizes"),
        ({"task": "shells", "size": (8, 8, 8), "n_classes": 12}, "too small for 12 classes"),
    ],
)
def test_parameters_out_of_range(changes, message):
    with pytest.raises(DatasetError, match=message):
        make_phantoms(**({"n_cases": 1} | changes))


def test_problems_come_together():
    with pytest.raises(DatasetError, match=r"task='x'.*n_cases=0.*noise=-1"):
        make_phantoms(0, task="x", noise=-1)
