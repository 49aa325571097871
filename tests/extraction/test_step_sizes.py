"""Preprocessing from a file that would fill the memory is stopped before it runs."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torchio as tio

from skte import BankEntry, ModelBank, SegmentationFeatureExtractor, memory_limit
from skte.datasets import make_phantoms
from skte.exceptions import ExtractionError
from tests.model_folders import bundle_config, require_monai, write_bundle


@pytest.fixture(scope="module")
def case():
    return make_phantoms(1, size=(24, 24, 24))[0]


def monai(kind, **options):
    require_monai()
    step = {"_target_": f"{kind}d", "keys": "@image_key", **options}
    config = bundle_config(preprocessing={"_target_": "Compose", "transforms": [step]})
    with TemporaryDirectory() as folder:
        return BankEntry.from_monai_bundle(write_bundle(Path(folder), config)[0]).preprocessing[0]


def prepare(case, entry):
    SegmentationFeatureExtractor(entry, window_size=16, overlap=0.0).fit_transform([case])


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [
        ("Resample", {"target": 0.001}),
        ("Resample", {"target": [1, 1, 1e-9]}),
        ("Resize", {"target_shape": 10**6}),
        ("CropOrPad", {"target_shape": [10**5, 10**5, 10]}),
        ("Pad", {"padding": [10**9, 0, 0, 0, 0, 0]}),
        ("EnsureShapeMultiple", {"target_multiple": 10**5}),
        ("Blur", {"std": 1e10}),
        lambda: monai("Spacing", pixdim=[1e-3] * 3),
        lambda: monai("Resize", spatial_size=[10**5] * 3),
        lambda: monai("SpatialPad", spatial_size=[10**5] * 3),
        lambda: monai("BorderPad", spatial_border=10**5),
        lambda: monai("DivisiblePad", k=10**5),
        lambda: tio.Compose([tio.Resize(10**5)]),
    ],
)
def test_a_step_beyond_the_memory_is_stopped(case, step):
    entry = BankEntry(
        "m", "skte.demo:small_unet", preprocessing=[step() if callable(step) else step]
    )
    match = r"stopped \(entry 'm', case .*\): \w+ would make .* voxels .*--max-memory"
    with pytest.raises(ExtractionError, match=match):
        prepare(case, entry)


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [
        ("Resample", {"target": 0.8}),
        ("Resize", {"target_shape": 32}),
        ("CropOrPad", {"target_shape": 30}),
        ("Pad", {"padding": 4}),
        ("Blur", {"std": 1}),
        ("Clamp", {"out_min": 0, "out_max": 1}),
        lambda: monai("Spacing", pixdim=[0.8] * 3),
    ],
)
def test_steps_of_usual_size_run(case, step):
    entry = BankEntry(
        "m", "skte.demo:small_unet", preprocessing=[step() if callable(step) else step]
    )
    prepare(case, entry)


def test_each_step_sees_what_the_one_before_made(case):
    steps = [("Resize", {"target_shape": 60}), ("Resample", {"target": 0.1})]
    entry = BankEntry("m", "skte.demo:small_unet", preprocessing=steps)
    with memory_limit("8MB"), pytest.raises(ExtractionError, match=r"Resample would make 2\d\d x"):
        prepare(case, entry)


@pytest.mark.slow
def test_the_limit_can_be_raised(case, tmp_path):
    model = {"name": "m", "factory": "skte.demo:small_unet", "weights": "none"}
    model["preprocessing"] = [{"name": "Resize", "target_shape": 66}]
    (tmp_path / "bank.json").write_text(json.dumps({"models": [model]}))
    entry = ModelBank.from_manifest(tmp_path / "bank.json")["m"]
    with memory_limit("1MB"), pytest.raises(ExtractionError, match="would make 66 x 66 x 66"):
        prepare(case, entry)
    with memory_limit("1GB"):
        prepare(case, entry)
