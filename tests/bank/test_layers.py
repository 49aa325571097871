"""Naming and describing layers: messages, and nothing left behind on the network."""

import copy

import pytest
import torch
from torch import nn

from skte import memory_limit
from skte.bank import (
    LayerInfo,
    describe_layers,
    find_layers,
    model_in_channels,
    model_spatial_dims,
)
from skte.demo import small_unet
from skte.exceptions import BankError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.down = nn.Conv2d(4, 8, 2, stride=2)
        self.split = Split()
        self.unused = nn.Conv2d(8, 8, 1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.head = nn.Conv2d(4, 2, 1)
        self.flat = nn.Flatten()

    def forward(self, x):
        x = self.norm(self.stem(x))
        x, _ = self.split(self.down(x))
        x = self.up(x)
        self.flat(x)
        return self.head(x)


class Split(nn.Module):
    def forward(self, x):
        return x, x + 1


class Fails(nn.Sequential):
    def forward(self, x):
        super().forward(x)
        raise RuntimeError("no such luck")


EXAMPLE = torch.zeros(1, 1, 8, 12)


def hooks(network):
    return [m for m in network.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_layers_are_described_in_the_order_given():
    found = describe_layers(Net(), ["up", "down"], EXAMPLE)
    assert found == [LayerInfo("up", (1, 1), 4), LayerInfo("down", (2, 2), 8)]


def test_all_unknown_layers_are_named_with_near_matches():
    with pytest.raises(BankError, match=r"'dowm'.*did you mean 'down'.*'zzz'.*It has 'stem'"):
        describe_layers(Net(), ["dowm", "up", "zzz"], EXAMPLE)


def test_all_unusable_outputs_are_named():
    with pytest.raises(BankError) as caught:
        describe_layers(Net(), ["split", "unused", "flat", "up"], EXAMPLE)
    message = str(caught.value)
    assert "'split' returns a tuple" in message
    assert "'unused' never runs" in message
    assert "'flat' returns shape (1, 384)" in message
    assert "'up'" not in message


@pytest.mark.parametrize(("names", "match"), [([], "empty"), (["up", "up"], "twice")])
def test_names_must_be_some_and_distinct(names, match):
    with pytest.raises(BankError, match=match):
        describe_layers(Net(), names, EXAMPLE)


@pytest.mark.parametrize(
    "find", [lambda n, x: find_layers(n, "auto", x), lambda n, x: describe_layers(n, ["0"], x)]
)
def test_a_failing_model_is_reported_with_its_own_error_and_no_hooks_left(find):
    network = Fails(nn.Conv2d(1, 2, 1)).train()
    with pytest.raises(BankError, match=r"\(1, 1, 8, 12\): RuntimeError: no such luck") as caught:
        find(network, EXAMPLE)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not hooks(network)
    assert all(module.training for module in network.modules())


def test_wrong_channels_name_the_model_s_error():
    with pytest.raises(BankError, match="number of channels"):
        find_layers(Net(), "decoder", torch.zeros(1, 3, 8, 8))


class FarApart(nn.Module):
    def forward(self, x):
        return (x.flatten()[:, None, None] - x.flatten()[:, None]).sum()[None]


@pytest.mark.parametrize(
    "network", [nn.Conv3d(1, 4, 3, padding=320), FarApart(), nn.ReflectionPad3d(7)], ids=str
)
@pytest.mark.parametrize("layers", [["0"], "auto", "encoder"])
def test_a_pass_is_stopped_before_it_takes_the_memory(network, layers):
    n_bytes = torch.zeros(1, 1, 8, 8, 8).element_size() * 22**3
    with (
        memory_limit(n_bytes),
        pytest.raises(BankError, match=r"stopped.*more than .*--max-memory"),
    ):
        find_layers(nn.Sequential(network, nn.ReLU()), layers, torch.zeros(1, 1, 8, 8, 8))


def test_memory_that_is_given_back_may_be_taken_again():
    network = nn.Sequential(nn.Conv3d(1, 8, 1), *(nn.Conv3d(8, 8, 1) for _ in range(20)))
    with memory_limit(2 * 10**6):
        (layer,) = describe_layers(network, ["20"], torch.zeros(1, 1, 24, 24, 24))
    assert layer.channels == 8


def test_network_and_example_are_left_as_they_were():
    network = nn.Sequential(nn.ReLU(inplace=True), Net().train()).train()
    network[1].norm.eval()
    before = copy.deepcopy(network.state_dict())
    example = -torch.ones(1, 1, 8, 8)
    layers = find_layers(network, "decoder", example)
    describe_layers(network, [layer.name for layer in layers], example)
    assert not hooks(network)
    assert network.training
    assert network[1].training
    assert not network[1].norm.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert torch.equal(example, -torch.ones(1, 1, 8, 8))


def test_foreign_hooks_stay():
    network = Net()
    handle = network.up.register_forward_hook(lambda *_: None)
    find_layers(network, "decoder", EXAMPLE)
    assert list(network.up._forward_hooks) == [handle.id]


def test_a_network_that_is_a_head_only_asks_for_layers():
    with pytest.raises(BankError, match=r"layers=\(\.\.\.\), from '0', '1'\."):
        find_layers(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Softmax(1)), "decoder", EXAMPLE)
    for network in (nn.Conv2d(1, 2, 1), nn.ReLU()):
        with pytest.raises(BankError, match="It has no modules inside"):
            find_layers(network, "decoder", EXAMPLE)


def test_output_that_is_no_tensor_asks_for_layers():
    with pytest.raises(BankError, match=r"layers=\(\.\.\.\)"):
        find_layers(nn.Sequential(Net(), Describe()), "decoder", EXAMPLE)


class Describe(nn.Module):
    def forward(self, x):
        return "a text"


class Catches(nn.Module):
    """Tries a block that fails, then does without."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(9, 9, 1))

    def forward(self, x):
        try:
            return self.block(x)
        except RuntimeError:
            return x


def test_an_exception_caught_inside_the_network_does_no_harm():
    network = nn.Sequential(nn.Conv2d(1, 4, 1), Catches(), nn.Conv2d(4, 2, 1))
    assert [layer.name for layer in find_layers(network, "decoder", EXAMPLE)] == ["0"]
    assert not hooks(network)


def test_trace_holds_no_tensor_alive():
    kept = []

    class Keep(nn.Identity):
        def forward(self, x):
            kept.append(__import__("weakref").ref(y := x * 2))
            return y + 0

    network = nn.Sequential(nn.Conv2d(1, 2, 3), Keep(), nn.Conv2d(2, 2, 3))
    find_layers(network, "decoder", EXAMPLE)
    assert kept
    assert all(reference() is None for reference in kept)


@pytest.mark.parametrize(
    ("network", "dims", "channels"),
    [
        (Net(), 2, 1),
        (nn.Sequential(nn.Conv3d(4, 8, 3), nn.Conv2d(8, 8, 1)), 3, 4),
        (nn.ModuleList([nn.ConvTranspose3d(2, 2, 2)]), 3, 2),
        # The head was registered first: not told by the order alone.
        (nn.ModuleList([nn.Conv2d(8, 2, 1), nn.Conv2d(1, 8, 3)]), 2, None),
        (nn.Linear(1, 2), None, None),
        (nn.LazyConv2d(4, 1), 2, None),
    ],
)
def test_convolutions_tell_dimensions_and_channels(network, dims, channels):
    assert model_spatial_dims(network) == dims
    assert model_in_channels(network) == channels


@pytest.mark.slow
def test_a_compiled_network_is_looked_at_without_compiling_anything():
    network = small_unet(widths=(4, 8))
    compiled = torch.compile(network, backend=lambda *_: pytest.fail("it was compiled"))
    example = torch.zeros(1, 1, 16, 16, 16)
    found = find_layers(compiled, "all", example)
    expected = find_layers(network, "all", example)
    assert [(i.stride, i.channels) for i in found] == [(i.stride, i.channels) for i in expected]
