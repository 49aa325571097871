"""Known architectures: looked-up stages, and the traced ones beside them."""

from unittest.mock import patch

import pytest
import torch
from torch import nn

from skte.bank import (
    find_layers,
    model_in_channels,
    model_spatial_dims,
)
from skte.bank._stages import ARCHITECTURES  # what is known has to be listed somewhere
from skte.exceptions import BankError


@pytest.fixture(scope="module")
def nets():
    # monai names an argument of torch.utils that newer releases deprecate.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.networks.nets")


FACTORIES = {
    "AttentionUnet": (lambda n: n.AttentionUnet(2, 1, 2, (4, 8, 16), (2, 2)), 16),
    "BasicUNet": (lambda n: n.BasicUNet(2, features=(4, 4, 8, 8, 16, 6)), 32),
    "BasicUNet (interpolated)": (
        lambda n: n.BasicUNet(2, features=(4, 4, 8, 8, 16, 6), upsample="nontrainable"),
        32,
    ),
    "BasicUNetPlusPlus": (lambda n: n.BasicUNetPlusPlus(2, features=(4, 4, 8, 8, 16, 6)), 32),
    "DynUNet": (
        lambda n: n.DynUNet(
            3, 1, 2, [3] * 4, [1, 2, 2, (2, 2, 1)], [2, 2, (2, 2, 1)], filters=[4, 8, 8, 16]
        ),
        16,
    ),
    "DynUNet (deep supervision)": (
        lambda n: n.DynUNet(
            2, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 8, 8, 16], deep_supervision=True
        ),
        16,
    ),
    "FlexibleUNet": (
        lambda n: n.FlexibleUNet(
            1, 2, "resnet10", decoder_channels=(16, 8, 8, 4, 4), spatial_dims=2
        ),
        64,
    ),
    "HighResNet": (
        lambda n: n.HighResNet(
            2,
            layer_params=({"name": "conv_0", "n_features": 4, "kernel_size": 3},) * 1
            + ({"name": "res_1", "n_features": 4, "kernels": (3, 3), "repeat": 1},)
            + (
                {"name": "conv_1", "n_features": 8, "kernel_size": 1},
                {"name": "conv_2", "kernel_size": 1},
            ),
        ),
        16,
    ),
    "MedNeXt": (
        lambda n: n.MedNeXt(2, 4, 1, blocks_down=(1, 1), blocks_bottleneck=1, blocks_up=(1, 1)),
        16,
    ),
    "SegResNet": (lambda n: n.SegResNet(2, 8, blocks_down=(1, 2, 2), blocks_up=(1, 1)), 16),
    "SegResNetDS": (lambda n: n.SegResNetDS(2, 8, blocks_down=(1, 2, 2)), 16),
    "SwinUNETR": (
        lambda n: n.SwinUNETR(
            1, 2, feature_size=12, num_heads=(1, 1, 2, 2), depths=(1,) * 4, spatial_dims=2
        ),
        64,
    ),
    "UNet": (lambda n: n.UNet(2, 1, 2, (4, 8, 16, 32), (2, 2, 2)), 16),
    "UNet (residual)": (
        lambda n: n.UNet(2, 1, 2, (4, 8, 16, 32), (2, 2, 2), num_res_units=2),
        16,
    ),
    "UNETR": (
        lambda n: n.UNETR(
            1, 2, (32, 32), 4, hidden_size=24, mlp_dim=24, num_heads=2, spatial_dims=2
        ),
        32,
    ),
    "VNet": (lambda n: n.VNet(2), 16),
}

UPCATS = [("upcat_4", 8, 8), ("upcat_3", 4, 8), ("upcat_2", 2, 4), ("upcat_1", 1, 6)]

#: Name, stride along the first axis and channels, read off the classes' sources.
TRUTH = {
    "AttentionUnet": [("model.1.submodule.1.merge", 2, 8), ("model.1.merge", 1, 4)],
    "BasicUNet": UPCATS,
    "BasicUNet (interpolated)": UPCATS,
    "BasicUNetPlusPlus": [
        ("upcat_3_1", 8, 8),
        ("upcat_2_2", 4, 8),
        ("upcat_1_3", 2, 4),
        ("upcat_0_4", 1, 6),
    ],
    "DynUNet": [("upsamples.0", 4, 8), ("upsamples.1", 2, 8), ("upsamples.2", 1, 4)],
    "DynUNet (deep supervision)": [
        ("upsamples.0", 4, 8),
        ("upsamples.1", 2, 8),
        ("upsamples.2", 1, 4),
    ],
    "FlexibleUNet": [
        ("decoder.blocks.0", 16, 16),
        ("decoder.blocks.1", 8, 8),
        ("decoder.blocks.2", 4, 8),
        ("decoder.blocks.3", 2, 4),
        ("decoder.blocks.4", 1, 4),
    ],
    "HighResNet": [("blocks.2", 1, 8)],
    "MedNeXt": [("dec_stages.0", 2, 8), ("dec_stages.1", 1, 4)],
    "SegResNet": [("up_layers.0", 2, 16), ("up_layers.1", 1, 8)],
    "SegResNetDS": [("up_layers.0.blocks", 2, 16), ("up_layers.1.blocks", 1, 8)],
    "SwinUNETR": [
        ("decoder5", 16, 96),
        ("decoder4", 8, 48),
        ("decoder3", 4, 24),
        ("decoder2", 2, 12),
        ("decoder1", 1, 12),
    ],
    "UNet": [("model.1.submodule.1.submodule.2", 4, 8), ("model.1.submodule.2", 2, 4)],
    "UNet (residual)": [("model.1.submodule.1.submodule.2", 4, 8), ("model.1.submodule.2", 2, 4)],
    "UNETR": [("decoder5", 8, 32), ("decoder4", 4, 16), ("decoder3", 2, 8), ("decoder2", 1, 4)],
    "VNet": [("up_tr256", 8, 256), ("up_tr128", 4, 128), ("up_tr64", 2, 64), ("up_tr32", 1, 32)],
}


class Wrapper(nn.Module):
    """Hides the class of a network, so that its stages are traced."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def traced(network, example):
    """Names of the decoder stages that are found without knowing the class."""
    with patch.dict(ARCHITECTURES, clear=True):
        layers = find_layers(Wrapper(network), "decoder", example)
    return [layer.name.removeprefix("net.") for layer in layers]


@pytest.mark.slow
@pytest.mark.parametrize("key", FACTORIES)
def test_stages_of_monai_networks(nets, key):
    factory, edge = FACTORIES[key]
    network = factory(nets)
    n_axes = 3 if key == "DynUNet" else 2
    assert model_spatial_dims(network) == n_axes
    assert model_in_channels(network) == 1
    example = torch.zeros(1, 1, *[edge] * n_axes)
    found = find_layers(network, "decoder", example)
    assert [(layer.name, layer.stride[0], layer.channels) for layer in found] == TRUTH[key]
    names = traced(network, example)
    if key == "UNet (residual)":  # the head's first convolution returns classes already
        assert names.pop() == "model.2.0"
    assert names == [name for name, _, _ in TRUTH[key]]


def test_anisotropic_strides_are_told_by_axis(nets):
    network = FACTORIES["DynUNet"][0](nets)
    found = find_layers(network, "decoder", torch.zeros(1, 1, 16, 16, 8))
    assert found[0].stride == (4, 4, 4)
    network = nets.DynUNet(3, 1, 2, [3] * 3, [1, (2, 2, 1), 2], [(2, 2, 1), 2], filters=[4, 8, 16])
    found = find_layers(network, "decoder", torch.zeros(1, 1, 16, 16, 8))
    assert [layer.stride for layer in found] == [(2, 2, 1), (1, 1, 1)]


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [nn.ConvTranspose2d(8, 4, 2, 2), nn.ConvTranspose2d(4, 4, 2, 2)]
        )
        self.head = nn.Conv2d(4, 2, 1)


class PlainConvUNet(nn.Module):
    """Same names as in dynamic-network-architectures, on which no test depends."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(1, 8, 4, 4)
        self.decoder = Decoder()

    def forward(self, x):
        x = self.encoder(x)
        for stage in self.decoder.stages:
            x = stage(x)
        return self.decoder.head(x)


PlainConvUNet.__module__ = "dynamic_network_architectures.architectures.unet"


class Derived(PlainConvUNet):
    pass


class Rebuilt(PlainConvUNet):
    """A subclass with a decoder of its own: the trace finds it."""

    def __init__(self) -> None:
        super().__init__()
        del self.decoder
        self.up, self.head = nn.ConvTranspose2d(8, 4, 4, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.up(self.encoder(x)))


class Bypassed(Rebuilt):
    """The registered stages are there but never run."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder()


def test_a_known_network_that_fails_is_reported():
    with pytest.raises(BankError, match="number of channels"):
        find_layers(PlainConvUNet(), "decoder", torch.zeros(1, 2, 16, 16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (PlainConvUNet, ["decoder.stages.0", "decoder.stages.1"]),
        (Derived, ["decoder.stages.0", "decoder.stages.1"]),
        (Rebuilt, ["up"]),
        (Bypassed, ["up"]),
    ],
)
def test_classes_are_known_by_name_and_by_their_bases(cls, names):
    found = find_layers(cls(), "decoder", torch.zeros(1, 1, 16, 16))
    assert [layer.name for layer in found] == names


def nnunet_arguments(n_axes, n_per_stage):
    conv, norm = {2: (nn.Conv2d, nn.InstanceNorm2d), 3: (nn.Conv3d, nn.InstanceNorm3d)}[n_axes]
    # As planned for thick slices: the first axis is halved once, the others twice.
    strides = [[1] * n_axes, [1] + [2] * (n_axes - 1), [2] * n_axes]
    return {
        "input_channels": 2,
        "n_stages": 3,
        "features_per_stage": [4, 8, 12],
        "conv_op": conv,
        "kernel_sizes": [[3] * n_axes] * 3,
        "strides": strides,
        n_per_stage: [1, 1, 1],
        "num_classes": 3,
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": norm,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


NNUNET = {
    "PlainConvUNet": "n_conv_per_stage",
    "ResidualEncoderUNet": "n_blocks_per_stage",
    "ResidualUNet": "n_blocks_per_stage",
}
ENCODERS = {"PlainConvEncoder", "ResidualEncoder", "ResNet", "SwinTransformer"}  # test_encoder.py
ENCODERS |= {"SegResNetDS2"}  # of VISTA3D, which takes minutes: python -m benchmarks.networks


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_known_architecture_has_an_example_and_is_documented(name):
    kind = name.rpartition(".")[2]
    assert kind in {key.partition(" ")[0] for key in FACTORIES} | NNUNET.keys() | ENCODERS
    assert f"``{kind}``" in find_layers.__doc__


@pytest.mark.slow
@pytest.mark.parametrize("deep_supervision", [True, False])
@pytest.mark.parametrize("n_axes", [2, 3])
@pytest.mark.parametrize(
    ("name", "n_per_stage"),
    NNUNET.items(),
)
def test_stages_of_nnunet_s_networks(dna, name, n_per_stage, n_axes, deep_supervision):
    arguments = nnunet_arguments(n_axes, n_per_stage)
    network = getattr(dna, name)(**arguments, deep_supervision=deep_supervision)
    example = torch.zeros(1, 2, *[16] * n_axes)
    rest = [1] * (n_axes - 1)
    found = [(a.name, list(a.stride), a.channels) for a in find_layers(network, "decoder", example)]
    assert found == [
        ("decoder.stages.0", [1, *(2 * r for r in rest)], 8),
        ("decoder.stages.1", [1, *rest], 4),
    ]
    assert traced(network, example) == [layer for layer, _, _ in found]
    encoder = [
        (a.name, list(a.stride), a.channels) for a in find_layers(network, "encoder", example)
    ]
    assert encoder == [
        ("encoder.stages.2", [2, *(4 * r for r in rest)], 12),
        ("encoder.stages.1", [1, *(2 * r for r in rest)], 8),
        ("encoder.stages.0", [1, *rest], 4),
    ]
    # The encoder alone gives a list of maps, finest first, and no classes.
    alone = find_layers(network.encoder, "decoder", example)
    assert [a.name for a in alone] == ["stages.2", "stages.1", "stages.0"]
