"""The voxels that are shown are those that are read."""

import numpy as np
import pytest
import torch
from torch import nn

from skte import BankEntry, SegmentationFeatureExtractor
from skte.datasets import make_phantoms, read_case
from skte.extraction import sampled_voxels


class Positions(nn.Module):
    """Its features are its input, which holds positions."""

    def __init__(self):
        super().__init__()
        self.up = nn.Identity()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.up(x * self.scale)


@pytest.mark.parametrize("settings", [{}, {"samples": "roi"}])
def test_voxels_are_those_that_features_come_from(settings):
    subjects = make_phantoms(2, size=(20, 18, 16))
    for subject in subjects:
        grid = np.stack(np.meshgrid(*map(np.arange, (20, 18, 16)), indexing="ij"))
        image = next(iter(subject.get_images(intensity_only=True)))
        image.set_data(grid.astype(np.float32))
    entry = BankEntry.from_module("positions", Positions(), spatial_dims=3, in_channels=3)
    extractor = SegmentationFeatureExtractor(
        entry, layers=["up"], window_size=10, random_state=5, source_head=False, **settings
    )
    features = extractor.fit_transform(subjects)
    for subject, case in zip(subjects, features, strict=True):
        for one in (
            extractor,
            SegmentationFeatureExtractor(entry, random_state=5, window_size=10, **settings),
        ):
            sample = sampled_voxels(one, read_case(subject))
            n = len(sample.labels)
            np.testing.assert_allclose(case.layers["up"].X, sample.voxels[:n], atol=1e-4)
            np.testing.assert_allclose(case.layers["up"].X_case, sample.voxels[n:], atol=1e-4)
            np.testing.assert_array_equal(case.layers["up"].y, sample.labels)


def test_an_undecided_seed_is_refused():
    case = read_case(make_phantoms(1, size=(12, 12, 12))[0])
    with pytest.raises(ValueError, match="random_state=None, so its voxels are not decided"):
        sampled_voxels(SegmentationFeatureExtractor(random_state=None), case)
