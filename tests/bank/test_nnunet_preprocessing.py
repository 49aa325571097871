"""Entries from nnU-Net's folders see what nnU-Net's networks see.

The reference arrays were made by nnU-Net itself: see benchmarks/adapters/_reference.py.
"""

import copy
import json
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torchio as tio
from scipy.spatial.transform import Rotation

from skte import BankEntry, SegmentationFeatureExtractor
from skte.bank import entry_digest

# The reference holds plans and images alone, without the folder and weights around them.
from skte.bank._nnunet import read_plan
from skte.bank._nnunet_transform import NNUNetPreprocessing, resampled_shape, separate_axis
from skte.datasets import load_dataset, make_phantoms, read_case
from skte.exceptions import BankError, ExtractionError

REFERENCE = np.load(Path(__file__).parent / "data" / "nnunet_reference.npz")
NOTES = json.loads(str(REFERENCE["notes"]))
CASES = NOTES["cases"]


def entry(steps):
    return BankEntry("x", "skte.demo:small_unet", preprocessing=steps)


def plan_of(name):
    plans = copy.deepcopy(CASES[name]["plans"])
    return read_plan(plans, "case", len(REFERENCE[f"{name}/image"]))


def preprocessed(name, change=lambda preprocessing: None):
    """Image and affine, after a change of what the plan says."""
    plan = plan_of(name)
    change(plan.preprocessing)
    steps = [("ToCanonical", {})] * plan.reorient + [NNUNetPreprocessing(**plan.preprocessing)]
    tensor = torch.from_numpy(REFERENCE[f"{name}/image"].astype(np.float32))
    image = tio.ScalarImage(tensor=tensor, affine=REFERENCE[f"{name}/affine"])
    return entry(steps).transform()(image)


def crop_start(name, found):
    """Where the first voxel of nnU-Net's result lies in ours, through world coordinates."""
    plan, box = plan_of(name), CASES[name]["box"]
    affine = REFERENCE[f"{name}/affine"]
    if plan.reorient:
        image = tio.ScalarImage(
            tensor=torch.from_numpy(REFERENCE[f"{name}/image"]).float(), affine=affine
        )
        affine = tio.ToCanonical()(image).affine
    expected = REFERENCE[f"{name}/expected"]
    steps = np.array([(b - a) / n for (a, b), n in zip(box, expected.shape[1:], strict=True)])
    turned = np.array([a for a, _ in box]) + steps / 2 - 0.5
    zyx = np.empty(3)
    zyx[list(plan.preprocessing["transpose"])] = turned
    world = affine[:3, :3] @ zyx[::-1] + affine[:3, 3]
    at = np.linalg.inv(found.affine) @ [*world, 1]
    assert np.allclose(at, at.round(), atol=1e-6)
    return at[:3].round().astype(int)


@pytest.mark.parametrize("name", CASES)
def test_values_are_nnunet_s_own(name):
    found = preprocessed(name)
    expected = REFERENCE[f"{name}/expected"]
    if len(plan_of(name).patch_size) == 2:  # slices last
        expected = expected.transpose(0, 2, 3, 1)
    x, y, z = crop_start(name, found)
    size = expected.shape[1:]
    inside = found.data.numpy()[:, x : x + size[0], y : y + size[1], z : z + size[2]]
    assert inside.shape == expected.shape
    np.testing.assert_allclose(inside, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", [n for n in CASES if "cropped" in n or n == "CT"])
def test_air_that_was_cropped_is_put_back(name):
    found = preprocessed(name)
    expected, start = REFERENCE[f"{name}/expected"], crop_start(name, found)
    assert (start > 0).all()
    outside = np.ones(found.data.shape[1:], dtype=bool)
    outside[tuple(slice(a, a + n) for a, n in zip(start, expected.shape[1:], strict=True))] = False
    preprocessing = plan_of(name).preprocessing
    for channel, values in enumerate(found.data.numpy()[:, outside]):
        # Air inside the crop (before splines mixed it) is the lowest there is.
        assert len(np.unique(values)) == 1
        if preprocessing["use_mask"][channel]:
            assert values[0] == 0
        else:
            raw = REFERENCE[f"{name}/image"][channel].astype(float)
            a, b, c = (slice(*edge) for edge in CASES[name]["box"])
            turned = raw.transpose(2, 1, 0).transpose(preprocessing["transpose"])[a, b, c]
            if preprocessing["schemes"][channel] == "CTNormalization":
                given = preprocessing["intensities"][channel]
                air = (0 - given["mean"]) / given["std"]
            else:
                air = (0 - turned.mean()) / turned.std()
            assert values[0] == pytest.approx(air, rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_every_voxel_of_the_image_lies_within(name):
    found = preprocessed(name)
    size = REFERENCE[f"{name}/image"].shape[1:]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in size])).reshape(3, -1)
    matrix = np.linalg.solve(found.affine, REFERENCE[f"{name}/affine"])
    at = matrix[:3, :3] @ corners + matrix[:3, 3:]
    last = np.array(found.data.shape[1:])[:, None] - 1
    # Faces coincide to half a voxel of the coarser grid, as sizes are whole numbers.
    slack = 0.5 + 0.5 * np.abs(matrix[:3, :3]).sum(axis=1, keepdims=True)
    assert (at > -slack).all()
    assert (at < last + slack).all()


def test_values_of_the_caller_are_left_alone():
    plan = plan_of("cropped")
    tensor = torch.from_numpy(REFERENCE["cropped/image"].astype(np.float32))
    kept = tensor.clone()
    NNUNetPreprocessing(**plan.preprocessing)(tio.ScalarImage(tensor=tensor))
    assert torch.equal(tensor, kept)


def test_the_transform_is_known_in_other_processes():
    plan = plan_of("CT")
    one, two = (NNUNetPreprocessing(**plan.preprocessing) for _ in range(2))
    assert one == two == pickle.loads(pickle.dumps(one))
    assert hash(one) == hash(two)
    assert one != NNUNetPreprocessing(**{**plan.preprocessing, "transpose": [0, 2, 1]})
    assert one != 3
    digest = entry_digest(entry([one]))
    assert digest is not None
    assert digest == entry_digest(entry([pickle.loads(pickle.dumps(two))]))


@pytest.mark.parametrize(
    ("change", "data", "match"),
    [
        ({}, np.ones((2, 4, 4, 4)), "takes 1 channels, but the image has 2"),
        ({"spacing": (90.0, 1.0, 1.0)}, np.ones((1, 4, 4, 4)), "nothing is left"),
        ({"schemes": ["RGBTo01Normalization"]}, np.full((1, 4, 4, 4), 300), "8-bit"),
    ],
)
def test_images_that_do_not_fit_are_told(change, data, match):
    arguments = {**plan_of("isotropic").preprocessing, **change}
    image = tio.ScalarImage(tensor=torch.from_numpy(data.astype(np.float32)))
    with pytest.raises(ValueError, match=match):
        NNUNetPreprocessing(**arguments)(image)


@pytest.mark.parametrize("spacing", [[1e-4] * 3, [1e-4] * 2, [0.8] * 3])
def test_a_spacing_that_would_fill_the_memory_is_stopped(spacing):
    steps = [NNUNetPreprocessing(**{**plan_of("as it is").preprocessing, "spacing": spacing})]
    extractor = SegmentationFeatureExtractor(entry(steps), window_size=16, overlap=0.0)
    case = make_phantoms(1, size=(24, 24, 24))
    if spacing[0] > 0.5:
        assert len(extractor.fit_transform(case)) == 1
    else:
        with pytest.raises(ExtractionError, match=r"would make .* voxels .*--max-memory"):
            extractor.fit_transform(case)


def test_an_empty_image_is_kept_whole():
    plan = plan_of("as it is")
    image = tio.ScalarImage(tensor=torch.zeros(1, 4, 5, 6))
    assert NNUNetPreprocessing(**plan.preprocessing)(image).data.shape == (1, 6, 5, 4)


@pytest.mark.parametrize(
    ("spacing", "target", "force", "axis"),
    [
        ((3.0, 1.0, 1.0), (1.0, 1.0, 1.0), None, None),  # three times is not more than that
        ((3.1, 1.0, 1.0), (1.0, 1.0, 1.0), None, 0),
        ((1.0, 1.0, 1.0), (1.0, 5.0, 1.0), None, 1),
        ((5.0, 5.0, 1.0), (1.0, 1.0, 9.0), None, None),  # the image's own spacing decides first
        ((1.0, 1.0, 2.0), (1.0, 1.0, 1.0), True, 2),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 9.0), True, None),
        ((9.0, 1.0, 1.0), (1.0, 1.0, 1.0), False, None),
    ],
)
def test_which_axis_is_resampled_apart(spacing, target, force, axis):
    assert separate_axis(spacing, target, force=force) == axis


@pytest.mark.parametrize("name", ["never apart", "torch, thick slices"])
def test_options_that_a_plan_leaves_out_are_those_of_the_function(name):
    """nnU-Net resamples no axis apart with splines unless told to; its torch function decides."""
    found = preprocessed(name, lambda plan: plan["options"].pop("force_separate_z"))
    np.testing.assert_array_equal(found.data, preprocessed(name).data)
    other = name == "never apart"
    changed = preprocessed(name, lambda plan: plan["options"].update(force_separate_z=other))
    assert not np.allclose(found.data, changed.data)


def test_an_axis_is_resampled_apart_from_three_times_on():
    def with_threshold(threshold):
        def change(plan):
            plan["spacing"] = (3.5, 1.0, 1.0)
            plan["options"].update(threshold)

        return preprocessed("isotropic", change).data.numpy()

    found = with_threshold({})
    key = "separate_z_anisotropy_threshold"
    np.testing.assert_array_equal(found, with_threshold({key: 3.0}))
    assert not np.allclose(found, with_threshold({key: 4.0}))


def test_air_is_clipped_as_the_image_is():
    def change(plan):
        plan["intensities"][0]["percentile_00_5"] = 20.0

    found = preprocessed("CT", change).data.numpy()
    given = plan_of("CT").preprocessing["intensities"][0]
    assert found[0, 0, 0, 0] == pytest.approx((20 - given["mean"]) / given["std"], rel=1e-5)


def test_sizes_are_rounded_to_even_as_python_does():
    assert resampled_shape((5, 7), (1.0, 1.0), (2.0, 2.0)) == (2, 4)


def broken(**changes):
    plans = copy.deepcopy(CASES["isotropic"]["plans"])
    for key, value in changes.items():
        (plans if key in plans or key.startswith("image") else plans["configurations"]["case"])[
            key
        ] = value
    return plans


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"patch_size": [8, 0, 8]}, "patch_size="),
        ({"patch_size": [8, 8]}, "2 or 3 values each"),
        ({"patch_size": [10**9] * 3}, "patch_size="),
        ({"spacing": "1 mm"}, "spacing='1 mm' must be a list of positive numbers"),
        ({"transpose_forward": [0, 1]}, "transpose_forward="),
        ({"preprocessor_name": "Mine"}, "preprocessor_name='Mine' is unknown"),
        ({"resampling_fn_data": "os.system"}, "resampling_fn_data='os.system' is unknown"),
        ({"resampling_fn_data_kwargs": 3}, "must map names to values"),
        ({"image_reader_writer": "os.system"}, "image_reader_writer='os.system' is unknown"),
        ({"previous_stage": "3d_lowres"}, "segmentation of '3d_lowres' as further input"),
        ({"normalization_schemes": ["os.system"]}, r"\['os.system'\] are unknown"),
        ({"normalization_schemes": []}, "one value for each of the 1 channels"),
        (
            {
                "normalization_schemes": ["CTNormalization"],
                "foreground_intensity_properties_per_channel": {"0": {"mean": 1}},
            },
            "channel 0 needs",
        ),
    ],
)
def test_plans_that_cannot_be_followed_are_told(changes, match):
    with pytest.raises(BankError, match=match):
        read_plan(broken(**changes), "case", 1)


def test_configurations_may_inherit():
    plans = broken()
    plans["configurations"]["small"] = {"inherits_from": "case", "patch_size": [4, 4, 4]}
    plan = read_plan(plans, "small", 1)
    assert plan.patch_size == (4, 4, 4)
    assert plan.preprocessing == read_plan(plans, "case", 1).preprocessing
    plans["configurations"]["case"]["inherits_from"] = "small"
    with pytest.raises(BankError, match="in a circle"):
        read_plan(plans, "small", 1)
    with pytest.raises(BankError, match=r"no configuration '2d' in plans.json; known: case, small"):
        read_plan(plans, "2d", 1)
    with pytest.raises(BankError, match="not plans of nnU-Net v2"):
        read_plan([], "2d", 1)


def test_sizes_follow_the_spacing_of_the_header(tmp_path):
    """Rounding makes 1.5 mm of an oblique affine 1.50000004, and of 7 slices of it 11, not 10."""
    turn = Rotation.from_euler("xyz", [12, -7, 30], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.75, 1.5, 1.5])
    values = np.random.default_rng(0).uniform(1, 2, (11, 9, 7)).astype(np.float32)
    paths = tmp_path / "image.nii", tmp_path / "label.nii"
    for path, array in zip(paths, (values, (values > 1.5).astype(np.uint8)), strict=True):
        image = nib.Nifti1Image(array, affine)
        image.set_qform(affine, 1)
        image.to_filename(path)
    case = read_case(load_dataset([{"image": paths[0], "label": paths[1]}])[0])
    assert case.spacing == (0.75, 1.5, 1.5)
    step = NNUNetPreprocessing(
        transpose=[0, 1, 2],
        spacing=[1.0, 1.0, 1.0],
        schemes=["ZScoreNormalization"],
        use_mask=[False],
        intensities=[{}],
        resampling="resample_data_or_seg_to_shape",
        options={"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
    )
    prepared = entry([step]).transform()(case.to_image())
    assert prepared.spatial_shape == (10, 14, 8)  # z, y, x, as nnU-Net has it
    rescaled = entry(["ZNormalization", step]).transform()(case.to_image())
    assert rescaled.spatial_shape == (10, 14, 8)
    other = entry([("Resample", {"target": (2, 2, 2)}), step]).transform()(case.to_image())
    assert other.spatial_shape[0] == pytest.approx(7 * 1.5, abs=1.5)  # what was stated is over
