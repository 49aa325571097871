"""Forms of layers other than maps, the locality probe, and networks without padding."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
import torchio as tio
from torch import nn

from skte import BankEntry, SegmentationFeatureExtractor
from skte.bank import as_map, find_layers, main_output
from skte.datasets import read_case
from skte.exceptions import BankError, GuessedLayersWarning
from skte.extraction import sampled_voxels


class Patches(nn.Module):
    """Embeds patches; goes on with tokens behind a class token, or with channels last."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.embed = nn.Conv2d(1, 6, 4, stride=4)
        self.mix = nn.Linear(6, 6)
        self.head = nn.ConvTranspose2d(6, 2, 4, stride=4)

    def forward(self, x):
        x = self.embed(x)
        size = x.shape[2:]
        if self.form == "channels last":
            x = self.mix(x.permute(0, 2, 3, 1))
            return self.head(x.permute(0, 3, 1, 2))
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self.mix(torch.cat([torch.zeros(len(x), 1, 6), tokens], 1))
        return self.head(tokens[:, 1:].transpose(1, 2).unflatten(2, size))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tokens", "channels last"])
def test_tokens_and_channels_last_become_the_same_map(form):
    network = Patches(form)
    image = torch.randn(1, 1, 32, 24)
    (layer,) = find_layers(network, ["mix"], torch.zeros_like(image))
    assert (layer.stride, layer.channels, layer.form) == ((4, 4), 6, form)
    assert (layer.n_extra, layer.certainty) == (int(form == "tokens"), "checked")
    taken = []
    network.mix.register_forward_hook(lambda *args: taken.append(args[2]))
    network(image)
    expected = torch.einsum("oc,bcxy->boxy", network.mix.weight, network.embed(image))
    expected += network.mix.bias[:, None, None]
    torch.testing.assert_close(as_map(taken[0], layer, (32, 24)), expected)


def test_the_token_layer_is_found_as_the_encoder():
    (layer,) = find_layers(Patches("tokens"), "encoder", torch.zeros(1, 1, 32, 32))
    assert layer.name == "mix"


class Shuffled(nn.Module):
    """Puts the places of a map in another order."""

    def forward(self, x):
        order = torch.randperm(x[0, 0].numel(), generator=torch.Generator().manual_seed(1))
        return x.flatten(2)[:, :, order].unflatten(2, x.shape[2:])


def test_a_layer_that_is_no_map_of_the_image_is_a_guess():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Shuffled(), nn.Conv2d(4, 2, 1))
    kept, shuffled = find_layers(network, ["0", "1"], torch.zeros(1, 1, 32, 32))
    assert (kept.certainty, shuffled.certainty) == ("checked", "guess")
    assert min(kept.locality) > 0.9


def test_a_guess_is_warned_about(make_cases):
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), Shuffled(), nn.Conv3d(4, 2, 1))
    entry = BankEntry.from_module("odd", network, layers=["1"])
    extractor = SegmentationFeatureExtractor(entry)
    with pytest.warns(GuessedLayersWarning, match="Entry 'odd'.*'1'.*skte inspect"):
        extractor.fit(make_cases())
    assert extractor.layers_certainty_ == "guess"


@pytest.fixture
def make_cases():
    def make():
        image, label = torch.rand(1, 20, 18, 14), torch.zeros(1, 20, 18, 14)
        label[:, 0:4], label[:, 8:12] = 1, 2  # at the face of the volume, and inside
        return [tio.Subject(image=tio.ScalarImage(tensor=image), label=tio.LabelMap(tensor=label))]

    return make


def unpadded(n_lost: int) -> nn.Module:
    """Return the image without its outermost voxels."""
    convolution = nn.Conv3d(1, 1, 2 * n_lost + 1, bias=False)
    nn.init.dirac_(convolution.weight)
    return nn.Sequential(convolution, nn.Conv3d(1, 2, 1))


@pytest.mark.parametrize("samples", ["all", "roi"])
def test_a_network_without_padding_is_read_in_the_right_places(make_cases, samples):
    cases = make_cases()
    entry = BankEntry.from_module("valid", unpadded(3), layers=["0"], window_size=16)
    extractor = SegmentationFeatureExtractor(entry, samples=samples)
    (case,) = extractor.fit_transform(cases)
    (layer,) = extractor.layers_
    assert (layer.stride, layer.start, layer.certainty) == ((1, 1, 1), (3, 3, 3), "checked")
    read = read_case(cases[0])
    sample = sampled_voxels(extractor, read)
    x, y, z = sample.voxels[: len(sample.labels)].T
    np.testing.assert_allclose(case.layers["0"].X[:, 0], read.image.numpy()[0, x, y, z], rtol=1e-5)
    assert case.posterior is not None  # the output lies as the layer of its size does


@pytest.mark.parametrize(("size", "fixed"), [((60, 44), False), ((44, 36), True)])
def test_where_voxels_of_a_map_lie_does_not_depend_on_the_weights(size, fixed):
    class Valid(nn.Sequential):
        def forward(self, x):
            if fixed and x.shape[2:] != size:
                raise ValueError("wrong size")
            return super().forward(x)

    for seed in range(12):
        torch.manual_seed(seed)
        convolutions = [nn.Conv2d(1, 3, 5), nn.MaxPool2d(2), nn.Conv2d(3, 3, 5)]
        network = Valid(*convolutions, nn.Conv2d(3, 2, 1))
        (layer,) = find_layers(network, ["2"], torch.zeros(1, 1, *size))
        assert (layer.stride, layer.start) == ((2, 2), (6.5, 6.5))


def test_of_equally_fine_outputs_the_one_with_most_before_it_is_read(make_cases):
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1)
            self.aid = nn.Conv3d(1, 2, 1)

        def forward(self, x):
            return {"out": [self.aid(x), self.head(self.body(x))]}

    network, cases, read = TwoHeads(), make_cases(), []
    for output in (None, "out.0", "out.1"):
        entry = BankEntry.from_module("two", network, layers=["body"], output=output)
        (case,) = SegmentationFeatureExtractor(entry).fit_transform(cases)
        read.append(case.posterior.X)
    aid, whole = (np.abs(read[0] - one).max() for one in read[1:])
    assert whole == 0 < aid


def test_windows_smaller_than_what_is_lost_are_refused(make_cases):
    entry = BankEntry.from_module("valid", unpadded(3), layers=["0"], window_size=5)
    with pytest.raises(BankError, match="failed on an example"):
        SegmentationFeatureExtractor(entry).fit(make_cases())


class Prompted(nn.Module):
    def __init__(self, *, needs: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.needs = needs
        if needs:
            self.forward = lambda image, box: self.conv(image)

    def forward(self, image, box=None):
        return self.conv(image) + box.sum()


@pytest.mark.parametrize(
    ("needs", "match"),
    [(True, r"wants more inputs than the image \(box\): wrap it"), (False, r"also takes box: if")],
)
def test_a_network_that_wants_a_prompt_is_told_by_its_name(needs, match):
    with pytest.raises(BankError, match=match):
        find_layers(Prompted(needs=needs), ["conv"], torch.zeros(1, 1, 8, 8))


def test_a_network_that_ignores_the_image_without_its_prompt_is_told():
    class Silent(Prompted):
        def forward(self, image, box=None):
            return torch.zeros(1, 2, 8, 8) if box is None else self.conv(image) + box.sum()

    for layers in ("auto", "encoder"):
        with pytest.raises(
            BankError, match=r"does not depend on the image\. It also takes box: if"
        ):
            find_layers(Silent(needs=False), layers, torch.zeros(1, 1, 8, 8))


@dataclasses.dataclass
class Output:
    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden: list


def test_the_main_output_is_the_finest_map_or_the_one_named():
    coarse, fine = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 8, 8)
    assert main_output([coarse, fine]) is fine
    assert main_output({"seg": [coarse, fine]}) is fine
    assert main_output(Output(torch.zeros(()), coarse, [fine])) is coarse
    assert main_output(Output(None, fine, [coarse]), "hidden.0") is coarse
    assert main_output((fine, coarse), 1) is coarse
    assert main_output((fine, coarse), "2") is None
    cyclic = [fine]
    cyclic.append(cyclic)
    assert main_output(cyclic) is fine


class Wraps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1))

    def forward(self, x):
        logits = self.net(x)
        return Output(None, logits, [])


def test_a_network_that_returns_a_dataclass_has_layers():
    (layer,) = find_layers(Wraps(), "auto", torch.zeros(1, 1, 16, 16))
    assert layer.name == "net.0"


class Pyramid(nn.Module):
    """Returns its stages, as backbones do, and says how many channels each has."""

    def __init__(self, out_channels: list[int]) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.first, self.second = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)

    def forward(self, x):
        first = self.first(x)
        return [first, self.second(first)]


@pytest.mark.parametrize(("said", "certainty"), [([4, 8], "known"), ([3, 5], "checked")])
def test_what_an_encoder_returns_and_says_of_itself_is_known(said, certainty):
    found = find_layers(Pyramid(said), "auto", torch.zeros(1, 1, 64, 64))
    assert [(a.name, a.channels, a.certainty) for a in found] == [
        ("second", 8, certainty),
        ("first", 4, certainty),
    ]


def test_repeat_channels_feeds_a_network_of_three(make_cases):
    network = nn.Sequential(nn.Conv3d(3, 4, 1), nn.Conv3d(4, 2, 1))
    step = {"name": "RepeatChannels", "channels": 3}
    entry = BankEntry.from_module("rgb", network, layers=["0"], preprocessing=[step])
    image = tio.ScalarImage(tensor=torch.rand(1, 4, 4, 4))
    assert torch.equal(entry.transform()(image).data, image.data.repeat(3, 1, 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", GuessedLayersWarning)
        SegmentationFeatureExtractor(entry).fit(make_cases())
    with pytest.raises(ValueError, match="repeats a single channel, and the image has 2"):
        entry.transform()(tio.ScalarImage(tensor=torch.rand(2, 4, 4, 4)))
    for wrong in (0, 2.5, True):
        with pytest.raises(BankError, match="must be a positive integer"):
            BankEntry(
                "a", "skte.demo:small_unet", preprocessing=[("RepeatChannels", {"channels": wrong})]
            )


@pytest.mark.parametrize(("stride", "size"), [(14, 110), (20, 130)])
def test_large_strides_are_told_from_a_window_that_grows_enough(stride, size):
    """The map grows by few voxels, and the last one is cut off."""
    network = nn.Sequential(nn.Conv2d(1, 8, stride, stride), nn.Conv2d(8, 2, 1))
    (layer,) = find_layers(network, ["0"], torch.zeros(1, 1, size, size))
    assert layer.start is None
    assert layer.certainty == "checked"
