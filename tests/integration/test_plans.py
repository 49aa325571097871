"""Window plans through the extractor: every feature at its voxel."""

import numpy as np
import pytest
import torch
import torchio as tio
from torch import nn
from torch.nn import functional

from skte import BankEntry, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.demo import small_unet


class Coordinates(nn.Module):
    """Its only layer returns the input, in which a voxel's place is written."""

    def __init__(self, stride=1):
        super().__init__()
        self.down = nn.AvgPool3d(stride)
        self.up = nn.Identity()
        self.head = nn.Conv3d(3, 2, 1)

    def forward(self, x):
        return self.head(self.up(self.down(x)))


def place_coded(shape, spacing=(1.0, 1.0, 1.0), case_id="a"):
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32)
    label = np.zeros(shape, dtype=np.int64)
    label[2:7, 3:9, 1:5] = 2
    label[-6:-1, -6:-1, -3:] = 7
    affine = np.diag([*spacing, 1.0])
    return tio.Subject(
        image=tio.ScalarImage(tensor=torch.from_numpy(places), affine=affine),
        label=tio.LabelMap(tensor=torch.from_numpy(label)[None], affine=affine),
        case_id=case_id,
    )


PLANS = [{"overlap": 0.0}, {"overlap": 0.25}, {"overlap": 0.5}, {"samples": "roi"}]


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("shape", [(37, 29, 23), (9, 40, 11), (64, 20, 5)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_feature_belongs_to_its_voxel_and_label(plan, shape, batch_size):
    entry = BankEntry.from_module("places", Coordinates(), layers=("up",))
    extractor = SegmentationFeatureExtractor(
        entry, window_size=(16, 12, 8), batch_size=batch_size, n_case_samples=80, **plan
    )
    case = place_coded(shape)
    sample = extractor.fit_transform([case])[0].layers["up"]
    places = np.round(sample.X).astype(int)
    np.testing.assert_array_equal(places, sample.X)
    np.testing.assert_array_equal(case["label"].data[0].numpy()[tuple(places.T)], sample.y)
    whole = np.round(sample.X_case).astype(int)
    assert (whole >= 0).all()
    assert (whole < np.array(shape)).all()
    assert len(np.unique(whole, axis=0)) == len(whole)


@pytest.mark.parametrize("samples", ["all", "roi"])
def test_all_models_see_the_same_voxels(samples):
    case = place_coded((40, 36, 20))
    seen = []
    for window in ((16, 16, 8), (24, 8, 16)):
        entry = BankEntry.from_module("places", Coordinates(), layers=("up",), window_size=window)
        extractor = SegmentationFeatureExtractor(entry, samples=samples)
        seen.append(extractor.fit_transform([case])[0].layers["up"])
    np.testing.assert_array_equal(seen[0].X, seen[1].X)
    np.testing.assert_array_equal(seen[0].X_case, seen[1].X_case)


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_strided_layers_equal_full_upsampling(plan):
    """One window holds the volume, so every plan must give the same features."""
    network = small_unet(widths=(4, 8, 16))
    case = make_phantoms(1, size=(32, 32, 16))[0]
    entry = BankEntry.from_module("unet", network)
    extractor = SegmentationFeatureExtractor(entry, window_size=(32, 32, 16), **plan)
    sample = extractor.fit_transform([case])[0]
    for name, full in upsampled(network, sample.layers, case).items():
        label = case["label"].data[0].numpy().reshape(-1)
        mine = sample.layers[name]
        for value in (0, 1):  # each feature is that of some voxel of its class
            candidates = full[label == value]
            for x in mine.X[mine.y == value][:10]:
                gap = np.abs(candidates - x).max(axis=1).min()
                assert gap <= 1e-5 * np.abs(full).max()


def upsampled(network, names, case):
    """Every voxel's features, layer by layer, of shape (n_voxels, n_channels)."""
    outputs = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda m, a, out, name=name: outputs.__setitem__(name, out)
        )
        for name in names
    ]
    with torch.inference_mode():
        network.eval()(case["image"].data[None].float())
    for hook in hooks:
        hook.remove()
    size = tuple(case["label"].data.shape[1:])
    return {
        name: functional.interpolate(out, size=size, mode="trilinear", align_corners=False)[0]
        .reshape(out.shape[1], -1)
        .T.numpy()
        for name, out in outputs.items()
    }


def test_sizes_may_be_arrays_also_with_a_cache(tmp_path):
    entry = BankEntry("unet", small_unet, arguments={"widths": (4, 8)})
    settings = {"window_size": np.array([16, 16, 8]), "samples": "roi"}
    extractor = SegmentationFeatureExtractor(entry, cache=tmp_path, **settings)
    cases = make_phantoms(1, size=(20, 20, 16))
    assert len(extractor.fit_transform(cases)) == 1
