"""Reading layers at points: equal to full-size upsampling, hooks always removed."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skte.bank import main_output
from skte.exceptions import ExtractionError
from skte.extraction._reader import Taps, gather_points, inference_ready
from skte.extraction._runner import source_posterior


@pytest.mark.parametrize(
    ("window", "feature"),
    [
        ((12, 10, 8), (12, 10, 8)),
        ((12, 10, 8), (6, 5, 4)),
        ((12, 10, 8), (3, 5, 2)),
        ((13, 9, 7), (7, 5, 4)),
        ((16, 16, 1), (2, 4, 1)),
        ((6, 6, 6), (1, 1, 1)),
        ((4, 4, 4), (8, 8, 8)),
        ((12, 10), (6, 5)),
        ((15, 7), (4, 4)),
    ],
)
def test_gathering_equals_upsampling_then_indexing(window, feature):
    torch.manual_seed(0)
    values = torch.randn(5, *feature, dtype=torch.float64)
    mode = "trilinear" if len(window) == 3 else "bilinear"
    full = functional.interpolate(values[None], size=window, mode=mode, align_corners=False)[0]
    points = np.argwhere(np.ones(window)).astype(float)
    expected = full.reshape(5, -1).T
    torch.testing.assert_close(gather_points(values, points, window), expected)


def test_fractional_points_are_linear_between_voxels():
    ramp = torch.arange(10.0)[None, :, None, None].expand(1, 10, 3, 3)
    points = np.array([[2.25, 1.0, 1.0], [8.5, 0.3, 2.0], [-0.5, 0, 0]])
    result = gather_points(ramp, points, (10, 3, 3))
    torch.testing.assert_close(result[:, 0], torch.tensor([2.25, 8.5, 0.0]))


def test_features_stay_on_their_device_until_they_are_gathered():
    there = torch.empty(4, 6, 5, 4, device="meta")  # holds no values: reading one would fail
    points = np.array([[2.25, 1.0, 1.0], [8.5, 0.3, 2.0]])
    gathered = gather_points(there, points, (12, 10, 8))
    assert (gathered.device.type, gathered.shape) == ("meta", (2, 4))


def test_a_feature_of_the_wrong_dimension_is_an_error():
    with pytest.raises(ExtractionError, match="3 spatial axes"):
        gather_points(torch.zeros(4, 5, 5), np.zeros((1, 3)), (5, 5, 5))


def keep_sum(name, output):
    return output.sum()


def run(taps, batch):
    output = None
    with taps.one_pass():
        output = taps.network(batch)
    return output


def test_hooks_are_removed_also_after_an_exception():
    network = nn.Sequential(nn.Identity(), nn.ReLU())
    taps = Taps(network, ["0"], keep_sum)
    run(taps, torch.ones(2))
    assert taps.taken == {"0": 2}
    assert all(not m._forward_hooks for m in network.modules())

    def angry(name, output):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        run(Taps(network, ["0", "1"], angry), torch.ones(2))
    with pytest.raises(KeyError):
        run(Taps(network, ["0", "no such module"], keep_sum), torch.ones(2))
    assert all(not m._forward_hooks for m in network.modules())


class Counted(nn.Module):
    """Runs one part twice, then another, and counts what it finished."""

    def __init__(self):
        super().__init__()
        self.twice, self.head = nn.Identity(), nn.Identity()
        self.finished = 0

    def forward(self, x):
        y = self.head(self.twice(self.twice(x) + 1))
        self.finished += 1
        return y


def test_passes_end_after_the_last_layer_from_the_second_on():
    network = Counted()
    taps = Taps(network, ["twice"], keep_sum, stop=True)
    assert run(taps, torch.zeros(2)) is not None
    for value in (0.0, 3.0):
        assert run(taps, torch.full((2,), value)) is None
        assert taps.taken == {"twice": 2 * value + 2}  # the second call counts
    assert network.finished == 1
    taps = Taps(network, ["twice"], keep_sum)
    for _ in range(3):
        assert run(taps, torch.zeros(2)) is not None
    assert network.finished == 4


def test_network_is_left_as_it_was():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    network[1].eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with inference_ready(network, torch.device("cpu")):
        assert not network[0].training
        network(torch.randn(8, 2))
    assert network[0].training
    assert not network[1].training
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key])


def test_main_output_of_what_networks_return():
    x = torch.ones(2)
    assert main_output(x) is x
    assert main_output([x, None]) is x
    assert main_output(((x,),)) is x
    assert main_output({"out": x}) is x
    assert main_output({"logits": x}) is x
    assert main_output({"other": x}) is x
    assert main_output([]) is None
    assert main_output({"seg.main": {"a.b": x}, "seg": [x + 1]}, "seg.main.a.b") is x


class TestPosterior:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 80.0]], dtype=torch.float64)

    def test_softmax(self):
        expected = torch.softmax(self.logits, dim=1)
        torch.testing.assert_close(source_posterior(self.logits, "softmax"), expected)

    @pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
    def test_single_channel_is_a_foreground_logit(self, activation):
        p = torch.sigmoid(self.logits[:, :1])
        expected = torch.cat([1 - p, p], dim=1)
        torch.testing.assert_close(source_posterior(self.logits[:, :1], activation), expected)

    def test_regions_gain_a_background_and_sum_to_one(self):
        result = source_posterior(self.logits, "sigmoid")
        assert result.shape == (2, 4)
        torch.testing.assert_close(result.sum(dim=1), torch.ones(2, dtype=torch.float64))

    def test_background_is_what_the_likeliest_of_overlapping_regions_leaves(self):
        logits = torch.logit(torch.tensor([[0.6, 0.5]], dtype=torch.float64))
        expected = torch.tensor([[0.4, 0.6, 0.5]], dtype=torch.float64) / 1.5
        torch.testing.assert_close(source_posterior(logits, "sigmoid"), expected)

    def test_probabilities_pass_through(self):
        p = torch.softmax(self.logits, dim=1)
        torch.testing.assert_close(source_posterior(p, None), p)

    @pytest.mark.parametrize("bad", [[[0.4, 0.4]], [[1.5, -0.5]], [[1.2]], [[-0.1]]])
    def test_without_activation_rows_must_be_probabilities(self, bad):
        with pytest.raises(ValueError, match=r"activation=None .* set activation='softmax'"):
            source_posterior(torch.tensor(bad), None)

    def test_one_region_is_a_probability_without_activation(self):
        p = torch.tensor([[0.25]])
        torch.testing.assert_close(source_posterior(p, None), torch.tensor([[0.75, 0.25]]))

    @pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
    def test_not_finite(self, activation):
        with pytest.raises(ValueError, match="NaN or Inf"):
            source_posterior(torch.tensor([[0.5, torch.nan]]), activation)
