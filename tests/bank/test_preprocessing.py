"""Preprocessing chains: allow-listed, deterministic, and true to the affine."""

import numpy as np
import pytest
import torch
import torchio as tio
from torch import nn

from skte import BankEntry
from skte.exceptions import BankError


def entry(*steps):
    return BankEntry("a", nn.Identity, preprocessing=steps)


def coordinates(shape=(12, 10, 8)):
    """An image whose channels are the physical coordinates of its voxels."""
    affine = np.array(
        [[-1.5, 0, 0, 10], [0, 0, 2.0, -5], [0, 1.0, 0, 3], [0, 0, 0, 1]], dtype=float
    )
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    points = np.einsum("ij,jxyz->ixyz", affine[:3, :3], grid) + affine[:3, 3, None, None, None]
    return tio.ScalarImage(tensor=torch.from_numpy(points).float(), affine=affine)


SPATIAL = [
    "ToCanonical",
    ("ToOrientation", {"orientation": "LPS"}),
    "Transpose",
    ("Resample", {"target": 0.75}),
    ("Resample", {"target": [1.0, 2.0, 1.5]}),
    ("Resize", {"target_shape": 16}),
    ("Crop", {"cropping": (1, 2, 0, 1, 2, 0)}),
    ("CropOrPad", {"target_shape": [8, 12, 8]}),
    ("Pad", {"padding": 2, "padding_mode": "edge"}),
    ("EnsureShapeMultiple", {"target_multiple": 4}),
    ("EnsureShapeMultiple", {"target_multiple": 4, "method": "crop"}),
]


@pytest.mark.parametrize("step", SPATIAL, ids=str)
def test_voxels_can_be_followed_through_every_spatial_transform(step):
    image = coordinates()
    result = entry(step).transform()(image)
    centre = np.array(image.shape[1:]) // 2
    physical = image.affine @ [*centre, 1]
    there = np.linalg.solve(result.affine, physical)[:3]
    low = np.floor(there + 1e-6).astype(int)
    around = result.data[(slice(None), *(slice(a, a + 2) for a in low))]
    spacing = max(result.spacing)
    for axis, expected in enumerate(physical[:3]):  # the ramp is linear between voxels
        assert around[axis].min() - 1e-3 <= expected <= around[axis].max() + 1e-3
        assert around[axis].max() - around[axis].min() <= spacing + 1e-3


def test_named_intensity_transforms():
    image = tio.ScalarImage(tensor=torch.arange(1000.0).reshape(1, 10, 10, 10))
    chain = entry(
        ("Clamp", {"out_min": 100, "out_max": 900}),
        {"name": "RescaleIntensity", "out_min_max": [0, 1], "in_min_max": [100, 300]},
    )
    # A window wider than in_min_max is not clipped: (x - mean) / std in torchio's words.
    expected = (image.data.clamp(100, 900) - 100) / 200
    torch.testing.assert_close(chain.transform()(image).data, expected)
    normal = entry("ZNormalization").transform()(image).data
    assert normal.mean().abs() < 1e-3
    above = entry(("ZNormalization", {"masking_method": "mean"})).transform()(image).data
    assert above[image.data > image.data.mean()].mean().abs() < 1e-3
    assert entry(("Blur", {"std": 1})).transform()(image).data.std() < image.data.std()


def test_no_steps_no_transform():
    assert entry().transform() is None


def test_forms_of_a_step_are_the_same():
    forms = [
        ("Resample", {"target": (1, 1, 2)}),
        ["Resample", {"target": [1, 1, 2]}],
        {"name": "Resample", "target": [1, 1, 2]},
        {"transform": "Resample", "target": [1, 1, 2]},
    ]
    assert {str(entry(form).preprocessing) for form in forms} == {
        "(('Resample', {'target': (1, 1, 2)}),)"
    }


class Mirror(tio.Flip):
    pass


class Own(tio.SpatialTransform):
    """A transform of the user's own, who answers for its affine."""

    def apply_transform(self, subject):
        return subject


def halve(tensor):
    return tensor / 2


def test_live_transforms_and_functions():
    image = tio.ScalarImage(tensor=torch.ones(1, 4, 4, 4))
    chain = entry(halve, tio.Pad(1), lambda t: torch.cat([t, t])).transform()
    result = chain(image)
    assert result.shape == (2, 6, 6, 6)
    assert result.data.max() == 0.5
    assert image.data.max() == 1  # the caller's image is untouched


@pytest.mark.parametrize(
    "step",
    [
        tio.Compose([tio.ToCanonical(), tio.Resample(1), tio.ZNormalization()]),
        tio.Transpose(),
        tio.HistogramStandardization({"image": np.arange(13)}),
        tio.Lambda(lambda t: t),
        tio.Blur(1),
        Own(),
    ],
    ids=lambda step: type(step).__name__,
)
def test_live_transforms_that_keep_the_affine_true(step):
    assert entry(step).transform()[0] is step


@pytest.mark.parametrize("function", [lambda t: t[:, :2], lambda t: t[0], lambda t: "text"])
def test_a_function_must_keep_the_spatial_shape(function):
    image = tio.ScalarImage(tensor=torch.ones(1, 4, 4, 4))
    with pytest.raises(ValueError, match=r"must keep the spatial shape.*tio\.Transform"):
        entry(function).transform()(image)


@pytest.mark.parametrize(
    ("step", "match"),
    [
        ("RandomNoise", "random augmentation"),
        ("OneOf", "random augmentation"),
        (tio.RandomFlip(), "'RandomFlip' is refused"),
        (tio.Compose([tio.ToCanonical(), tio.RandomBlur()]), "'RandomBlur' is refused"),
        (tio.OneOf([tio.Clamp(0, 1)]), "'OneOf' is refused"),
        (tio.Clamp(0, 1, p=0.5), "Clamp with p < 1 is refused"),
        (tio.Flip(0), "'Flip' is refused: it leaves the affine as it was"),
        (tio.Affine(1, (0, 0, 30), 0), "'Affine' is refused: .*keep the affine true.*Resample"),
        (tio.Compose([tio.Compose([tio.Flip(0)])]), "'Flip' is refused"),
        (tio.Compose({"a": tio.Clamp(0, 1), "b": tio.Flip(0)}), "'Flip' is refused"),
        (tio.CopyAffine("image"), "'CopyAffine' is refused: .*not its label"),
        (Mirror(0), "'Mirror' is refused: it leaves the affine"),
        (tio.Swap(5, [((0, 0, 0), (6, 6, 6))]), "'Swap' is refused: it moves patches"),
        ("Flip", "leaves the affine as it was"),
        ("HistogramStandardization", "file of landmarks"),
        ("CopyAffine", "not its label"),
        ("Normalise", "unknown transform 'Normalise'; did you mean 'ZNormalization'"),
        ("Xyz", "unknown transform 'Xyz'; known: Blur, Clamp"),
        (("ToCanonical", {"p": 0.5}), "unknown parameter 'p'; it takes none"),
        (("Clamp", {"minimum": 0}), "unknown parameter 'minimum'; known: out_min, out_max"),
        (("Resample", {"target": "/etc/passwd"}), "spacing in millimetres"),
        (("Resample", {"target": -1}), "target=-1 must be a spacing in millimetres"),
        (("Resample", {"target": [1, 2]}), "one positive number or three"),
        (("Clamp", {"out_min": 2, "out_max": 1}), "out_min=2 is above out_max=1"),
        (("Clamp", {"out_min": "a", "out_max": 1}), "out_min='a' and out_max=1 must be numbers"),
        (("ZNormalization", {"masking_method": "label"}), "masking_method='label' must be"),
        ("Resize", "missing 1 required positional argument: 'target_shape'"),
        ("CropOrPad", "target_shape must be given"),
        ({"target": 1}, "is not a step"),
        ({"name": 3}, "is not a step"),
        (3, "3 is not a step"),
        (tio.ZNormalization, "is not a step"),
    ],
)
def test_refused_steps_say_why(step, match):
    with pytest.raises(BankError, match=match) as caught:
        entry(step)
    assert "Entry 'a': preprocessing" in str(caught.value)


def test_flip_would_break_the_affine():
    # The reason for refusing it: a voxel's physical position changes, the affine does not.
    image = coordinates()
    flipped = tio.Flip(axes=0)(image)
    assert np.array_equal(flipped.affine, image.affine)
    assert not torch.equal(flipped.data, image.data)
