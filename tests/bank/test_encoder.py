"""Encoder stages, and checkpoints that hold an encoder and nothing else."""

import warnings

import pytest
import torch
from torch import nn

from skte import BankEntry
from skte.bank import find_layers
from skte.exceptions import BankError


@pytest.fixture(scope="module")
def nets():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.networks.nets")


FACTORIES = {
    "AttentionUnet": (lambda n: n.AttentionUnet(2, 1, 2, (4, 8, 16), (2, 2)), 16),
    "BasicUNet": (
        lambda n: n.BasicUNet(2, features=(4, 4, 8, 8, 16, 6), upsample="nontrainable"),
        32,
    ),
    "DynUNet": (
        lambda n: n.DynUNet(2, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 8, 8, 16]),
        16,
    ),
    "FlexibleUNet": (
        lambda n: n.FlexibleUNet(
            1, 2, "resnet10", decoder_channels=(16, 8, 8, 4, 4), spatial_dims=2
        ),
        64,
    ),
    "ResNet": (lambda n: n.resnet10(spatial_dims=2, n_input_channels=1, num_classes=2), 64),
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
    "UNet": (lambda n: n.UNet(2, 1, 2, (4, 8, 16, 32), (2, 2, 2), num_res_units=2), 16),
    "VNet": (lambda n: n.VNet(2), 16),
}

#: Name, stride along the first axis and channels, read off the classes' sources.
TRUTH = {
    "AttentionUnet": [
        ("model.1.submodule.1.submodule", 4, 16),
        ("model.1.submodule.0", 2, 8),
        ("model.0", 1, 4),
    ],
    "BasicUNet": [
        ("down_4", 16, 16),
        ("down_3", 8, 8),
        ("down_2", 4, 8),
        ("down_1", 2, 4),
        ("conv_0", 1, 4),
    ],
    "DynUNet": [
        ("bottleneck", 8, 16),
        ("downsamples.1", 4, 8),
        ("downsamples.0", 2, 8),
        ("input_block", 1, 4),
    ],
    "FlexibleUNet": [
        ("encoder.layer4", 32, 512),
        ("encoder.layer3", 16, 256),
        ("encoder.layer2", 8, 128),
        ("encoder.layer1", 4, 64),
        ("encoder.act", 2, 64),
    ],
    "ResNet": [("layer4", 16, 512), ("layer3", 8, 256), ("layer2", 4, 128), ("layer1", 2, 64)],
    "MedNeXt": [("bottleneck", 4, 16), ("enc_stages.1", 2, 8), ("enc_stages.0", 1, 4)],
    "SegResNet": [("down_layers.2", 4, 32), ("down_layers.1", 2, 16), ("down_layers.0", 1, 8)],
    "SegResNetDS": [
        ("encoder.layers.2.blocks", 4, 32),
        ("encoder.layers.1.blocks", 2, 16),
        ("encoder.layers.0.blocks", 1, 8),
    ],
    "SwinUNETR": [
        ("swinViT.layers4.0", 32, 192),
        ("swinViT.layers3.0", 16, 96),
        ("swinViT.layers2.0", 8, 48),
        ("swinViT.layers1.0", 4, 24),
        ("swinViT.patch_embed", 2, 12),
    ],
    "UNet": [
        ("model.1.submodule.1.submodule.1.submodule", 8, 32),
        ("model.1.submodule.0", 4, 8),
        ("model.0", 2, 4),
    ],
    "VNet": [
        ("down_tr256", 16, 256),
        ("down_tr128", 8, 128),
        ("down_tr64", 4, 64),
        ("down_tr32", 2, 32),
        ("in_tr", 1, 16),
    ],
}


class Wrapper(nn.Module):
    """Hides the class of a network, so that its stages are traced."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def rows(layers):
    return [(layer.name, layer.stride[0], layer.channels) for layer in layers]


@pytest.mark.slow
@pytest.mark.parametrize("key", FACTORIES)
def test_encoder_stages_of_monai_networks(nets, key):
    factory, edge = FACTORIES[key]
    network, example = factory(nets), torch.zeros(1, 1, edge, edge)
    assert rows(find_layers(network, "encoder", example)) == TRUTH[key]


@pytest.mark.parametrize("key", ["BasicUNet", "DynUNet", "SegResNet", "VNet"])
def test_the_trace_finds_what_is_registered(nets, key):
    factory, edge = FACTORIES[key]
    network = factory(nets)
    found = find_layers(Wrapper(network), "encoder", torch.zeros(1, 1, edge, edge))
    assert rows(found) == [(f"net.{name}", *rest) for name, *rest in TRUTH[key]]


def test_a_pure_encoder_s_stages_are_its_layers(nets):
    network = FACTORIES["ResNet"][0](nets)
    assert rows(find_layers(network, "decoder", torch.zeros(1, 1, 64, 64))) == TRUTH["ResNet"]
    swin = nets.swin_unetr.SwinTransformer(
        1, 12, (7, 7), (2, 2), (1,) * 4, (1, 1, 2, 2), spatial_dims=2
    )
    found = rows(find_layers(swin, "decoder", torch.zeros(1, 1, 64, 64)))
    assert found == [(name.removeprefix("swinViT."), *rest) for name, *rest in TRUTH["SwinUNETR"]]


@pytest.mark.slow
def test_tokens_are_read_as_maps(nets):
    network = nets.UNETR(1, 2, (32, 32), 4, hidden_size=24, mlp_dim=24, num_heads=2, spatial_dims=2)
    (layer,) = find_layers(network, "encoder", torch.zeros(1, 1, 32, 32))
    assert (layer.name, layer.stride, layer.channels) == ("vit.norm", (16, 16), 24)
    assert layer.form == "tokens"


def test_a_network_without_modules_that_return_maps_is_told():
    class Bare(nn.Module):
        def forward(self, x):
            return x.mean()

    with pytest.raises(BankError, match="No encoder stage found in Bare"):
        find_layers(Bare(), "encoder", torch.zeros(1, 1, 8, 8))


def entry(path, **fields):
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "init_filters": 8}
    return BankEntry(
        "ssl", "monai.networks.nets:SegResNet", arguments=arguments, weights=path, **fields
    )


def test_encoder_weights_alone_load_into_a_whole_network(nets, tmp_path):
    torch.manual_seed(1)
    trained = nets.SegResNet(spatial_dims=3, in_channels=1, out_channels=2, init_filters=8)
    state = {
        k: v for k, v in trained.state_dict().items() if k.startswith(("convInit", "down_layers"))
    }
    path = tmp_path / "encoder.pt"
    torch.save(state, path)
    with pytest.raises(BankError, match=r"missing in the file.*up_layers"):
        entry(path).load()
    recipe = entry(path, layers="encoder")
    assert not recipe.source_head
    loaded = recipe.load().state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    del state["convInit.conv.weight"]
    torch.save(state, path)
    with pytest.raises(BankError, match=r"missing in the file \(1\): convInit.conv.weight"):
        recipe.load()


def test_only_known_classes_may_lack_weights(nets, tmp_path):
    path = tmp_path / "part.pt"
    torch.save({"0.weight": torch.zeros(1, 1, 1, 1), "0.bias": torch.zeros(1)}, path)
    recipe = BankEntry(
        "own",
        lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)),
        weights=path,
        layers="encoder",
    )
    with pytest.raises(BankError, match=r"missing in the file \(2\): 1.weight"):
        recipe.load()


SWIN = {"in_channels": 1, "out_channels": 2, "feature_size": 12, "num_heads": [1, 1, 2, 2],
        "depths": [1] * 4, "spatial_dims": 2}  # fmt: skip


@pytest.fixture(scope="module")
def swin(nets):
    torch.manual_seed(2)
    return nets.SwinUNETR(**SWIN).state_dict()


def swin_entry(path, state, **fields):
    torch.save(state, path / "swin.pt")
    return BankEntry(
        "swin", "monai.networks.nets:SwinUNETR", arguments=SWIN, weights=path / "swin.pt", **fields
    )


HEADS = {"rotation_head.weight": torch.ones(4, 4), "norm.weight": torch.ones(4)}


@pytest.mark.slow
@pytest.mark.parametrize("stripped", ["", "swinViT."])
@pytest.mark.parametrize("added", ["", "module.", "module._orig_mod."])
@pytest.mark.parametrize("heads", [{}, HEADS])
def test_encoders_are_read_with_and_without_their_name(swin, tmp_path, stripped, added, heads):
    encoder = {key: value for key, value in swin.items() if key.startswith("swinViT.")}
    state = {key.removeprefix(stripped): value for key, value in (encoder | heads).items()}
    entry = swin_entry(tmp_path, {added + k: v for k, v in state.items()}, layers="encoder")
    loaded = entry.load().state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in encoder.items())


def test_a_head_for_other_classes_is_left_out_and_reported(swin, tmp_path, caplog):
    other = {**swin, "out.conv.conv.weight": torch.zeros(7, 12, 1, 1)}
    with caplog.at_level("INFO", logger="skte"):
        swin_entry(tmp_path, other, layers="encoder").load()
    assert "left out (1): out.conv.conv.weight" in caplog.text
    with pytest.raises(BankError, match="of another shape"):
        swin_entry(tmp_path, other).load()
    strange = {**swin, "swinViT.norm9.weight": torch.zeros(7)}
    with pytest.raises(BankError, match=r"unexpected in the file \(1\): swinViT.norm9.weight"):
        swin_entry(tmp_path, strange, layers="encoder").load()


@pytest.mark.parametrize("stripped", ["", "swinViT."])
def test_the_remedy_for_an_encoder_is_to_read_that_alone(swin, tmp_path, stripped):
    encoder = {k.removeprefix(stripped): v for k, v in swin.items() if k.startswith("swinViT.")}
    with pytest.raises(BankError, match=r'pass layers="encoder" to read that alone.$'):
        swin_entry(tmp_path, encoder).load()
    with pytest.raises(BankError, match="factory's arguments"):
        swin_entry(tmp_path, {"a.b": torch.ones(1)}).load()


def test_an_encoder_as_its_own_network_takes_no_heads(nets, tmp_path):
    state = nets.resnet10(spatial_dims=2, n_input_channels=1, num_classes=2).state_dict()
    arguments = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [64, 128, 256, 512],
                 "spatial_dims": 2, "n_input_channels": 1, "num_classes": 2}  # fmt: skip
    torch.save({f"module.{k}": v for k, v in {**state, "conv_seg.0.weight": torch.ones(1)}.items()},
               tmp_path / "resnet.pt")  # fmt: skip
    entry = BankEntry("resnet", "monai.networks.nets:ResNet", arguments=arguments,
                      weights=tmp_path / "resnet.pt", layers="encoder")  # fmt: skip
    assert torch.equal(entry.load().conv1.weight, state["conv1.weight"])
