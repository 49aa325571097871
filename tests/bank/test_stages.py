"""Decoder stages that are traced, of U-Nets in many styles and of other networks."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from skte.bank import find_layers


def double(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(a, b, 3, padding=1, bias=False),
        nn.BatchNorm2d(b),
        nn.ReLU(inplace=True),
        nn.Conv2d(b, b, 3, padding=1, bias=False),
        nn.BatchNorm2d(b),
        nn.ReLU(inplace=True),
    )


class PlainUNet(nn.Module):
    """Transposed convolutions and torch.cat in the forward pass."""

    def __init__(self, inplanes: int = 1) -> None:
        super().__init__()
        self.enc1, self.enc2, self.enc3 = double(inplanes, 4), double(4, 8), double(8, 16)
        self.up2, self.up1 = nn.ConvTranspose2d(16, 8, 2, 2), nn.ConvTranspose2d(8, 4, 2, 2)
        self.dec2, self.dec1 = double(16, 8), double(8, 4)
        self.out = nn.Conv2d(4, 3, 1)
        self.pool = nn.MaxPool2d(2)

    def decode(self, x):
        e1 = self.enc1(x)
        e2 = self.enc2(self.pool(e1))
        e3 = self.enc3(self.pool(e2))
        d2 = self.dec2(torch.cat([self.up2(e3), e2], 1))
        return self.dec1(torch.cat([self.up1(d2), e1], 1))

    def forward(self, x):
        return self.out(self.decode(x))


class SoftmaxUNet(PlainUNet):
    def forward(self, x):
        return torch.softmax(super().forward(x), 1)


class DictUNet(PlainUNet):
    def forward(self, x):
        return {"aux": x, "out": super().forward(x)}


class Up(nn.Module):
    """The popular bilinear block that pads to the skip's size."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv = double(a, b)

    def forward(self, x, skip):
        x = self.up(x)
        dy, dx = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        x = functional.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return self.conv(torch.cat([skip, x], 1))


class OutConv(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(a, b, 1)

    def forward(self, x):
        return self.conv(x)


class PaddedUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inc = double(1, 4)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), double(4, 8))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), double(8, 8))
        self.up1, self.up2 = Up(16, 4), Up(8, 4)
        self.outc = OutConv(4, 2)

    def forward(self, x):
        a = self.inc(x)
        b = self.down1(a)
        return self.outc(self.up2(self.up1(self.down2(b), b), a))


class SqueezeExcite(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(n, 2, 1), nn.ReLU(), nn.Conv2d(2, n, 1)
        )

    def forward(self, x):
        return x * torch.sigmoid(self.gate(x))


class SqueezeUNet(PlainUNet):
    """Squeeze-and-excite everywhere: global pooling is not the bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1 = nn.Sequential(double(1, 4), SqueezeExcite(4))
        self.enc3 = nn.Sequential(double(8, 16), SqueezeExcite(16))
        self.dec2 = nn.Sequential(double(16, 8), SqueezeExcite(8))
        self.dec1 = nn.Sequential(double(8, 4), SqueezeExcite(4))


class Gate(nn.Module):
    """Additive attention at the gate's (coarser) resolution."""

    def __init__(self, n_skip: int, n_gate: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(n_skip, 4, 2, stride=2)
        self.phi, self.psi = nn.Conv2d(n_gate, 4, 1), nn.Conv2d(4, 1, 1)

    def forward(self, skip, gate):
        weights = torch.sigmoid(self.psi(functional.relu(self.theta(skip) + self.phi(gate))))
        return skip * functional.interpolate(weights, scale_factor=2)


class GatedUNet(PlainUNet):
    def __init__(self) -> None:
        super().__init__()
        self.gate2, self.gate1 = Gate(8, 16), Gate(4, 8)

    def forward(self, x):
        e1 = self.enc1(x)
        e2 = self.enc2(self.pool(e1))
        e3 = self.enc3(self.pool(e2))
        d2 = self.dec2(torch.cat([self.up2(e3), self.gate2(e2, e3)], 1))
        return self.out(self.dec1(torch.cat([self.up1(d2), self.gate1(e1, d2)], 1)))


class SupervisedUNet(PlainUNet):
    """Deep supervision: a list of outputs, finest first."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        e1 = self.enc1(x)
        e2 = self.enc2(self.pool(e1))
        e3 = self.enc3(self.pool(e2))
        d2 = self.dec2(torch.cat([self.up2(e3), e2], 1))
        return [self.out(self.dec1(torch.cat([self.up1(d2), e1], 1))), self.side(d2)]


class EquallyFineUNet(PlainUNet):
    """Deep supervision at full resolution: the last head has the whole decoder before it."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return [self.side(self.enc1(x)), super().forward(x)]


class FusedUNet(SupervisedUNet):
    """The side output is added to the main one."""

    def forward(self, x):
        fine, coarse = super().forward(x)
        return fine + functional.interpolate(coarse, scale_factor=2, mode="bilinear")


class Wrapped(nn.Module):
    """A whole network as an attribute, normalised on the way in."""

    def __init__(self) -> None:
        super().__init__()
        self.net = PlainUNet()

    def forward(self, x):
        return self.net((x - x.mean()) / (x.std() + 1e-3))


class SharedUNet(PlainUNet):
    """One activation module for all: only its last call can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.dec2, self.dec1 = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x):
        e1 = self.enc1(x)
        e2 = self.enc2(self.pool(e1))
        e3 = self.enc3(self.pool(e2))
        d2 = self.act(self.dec2(torch.cat([self.up2(e3), e2], 1)))
        return self.out(self.act(self.dec1(torch.cat([self.up1(d2), e1], 1))))


class PooledUNet(PlainUNet):
    """Its last map is pooled, and raised again beside itself."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.ModuleList([nn.Conv2d(4, 1, 1) for _ in range(2)])
        self.last = nn.Conv2d(6, 3, 1)

    def forward(self, x):
        x = self.decode(x)
        pooled = [p(functional.avg_pool2d(x, 4 * i)) for i, p in enumerate(self.project, 1)]
        raised = [functional.interpolate(p, size=x.shape[2:]) for p in pooled]
        return self.last(torch.cat([x, *raised], 1))


class RaisedLogits(nn.Module):
    """Logits at stride 2, raised by a transposed convolution of as many channels."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.unet = nn.Conv2d(1, 4, 2, stride=2), PlainUNet(4)
        self.raise_ = nn.ConvTranspose2d(3, 3, 2, stride=2)

    def forward(self, x):
        return self.raise_(self.unet(self.down(x)))


class TwoUNets(nn.Module):
    """The second U-Net goes on with the last map of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = PlainUNet(), PlainUNet(4)

    def forward(self, x):
        return self.two(self.one.decode(x))


class FunctionalUNet(nn.Module):
    """No blocks: single layers and functional activations, pooling, interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv3d(4, 8, 3, padding=1)
        self.conv3 = nn.Conv3d(8, 8, 3, padding=1)
        self.conv4 = nn.Conv3d(16, 6, 3, padding=1)
        self.conv5 = nn.Conv3d(10, 5, 3, padding=1)
        self.final = nn.Conv3d(5, 2, 1)

    def forward(self, x):
        a = functional.relu(self.conv1(x))
        b = functional.relu(self.conv2(functional.max_pool3d(a, 2)))
        c = functional.relu(self.conv3(functional.max_pool3d(b, 2)))
        x = torch.cat([functional.interpolate(c, scale_factor=2, mode="trilinear"), b], 1)
        x = functional.relu(self.conv4(x))
        x = torch.cat([functional.interpolate(x, scale_factor=2, mode="trilinear"), a], 1)
        return torch.sigmoid(self.final(functional.relu(self.conv5(x))))


class AutoEncoder(nn.Module):
    """No skips; every decoder block ends with the upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 8, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2)),
            nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2)),
            nn.Conv2d(4, 2, 3, padding=1),
        )

    def forward(self, x):
        return self.decoder(self.encoder(x))


class PyramidNet(nn.Module):
    """A feature pyramid: lateral convolutions, sums, and a head at stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.c2 = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.c3 = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.lateral3, self.lateral2 = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 6, 1)
        self.lateral1 = nn.Conv2d(4, 6, 1)
        self.smooth2, self.smooth1 = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        c1 = self.c1(x)
        c2 = self.c2(c1)
        p3 = self.lateral3(self.c3(c2))
        p2 = self.smooth2(self.lateral2(c2) + functional.interpolate(p3, scale_factor=2))
        p1 = self.smooth1(self.lateral1(c1) + functional.interpolate(p2, scale_factor=2))
        return functional.interpolate(self.head(p1), scale_factor=2, mode="bilinear")


class DilatedNet(nn.Module):
    """An encoder whose logits are interpolated: one stage, at stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 8, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.classifier = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        logits = self.classifier(self.backbone(x))
        return functional.interpolate(logits, size=x.shape[2:], mode="bilinear")


class FusedStages(nn.Module):
    """No decoder: the stages of an encoder, interpolated and joined, lead to the head."""

    def __init__(self, *, projected: bool = False) -> None:
        super().__init__()
        self.stages = nn.ModuleList([double(1, 4), double(4, 8), double(8, 16)])
        widths = (6, 6, 6) if projected else (4, 8, 16)
        self.project = nn.ModuleList([nn.Conv2d(4 * 2**i, 6, 1) for i in range(3)])
        self.projected = projected
        self.head = nn.Conv2d(sum(widths), 2, 1)

    def forward(self, x):
        found, size = [], x.shape[2:]
        for i, stage in enumerate(self.stages):
            x = stage(functional.max_pool2d(x, 2) if i else x)
            found.append(self.project[i](x) if self.projected else x)
        raised = [functional.interpolate(one, size=size, mode="bilinear") for one in found]
        return {"logits": self.head(torch.cat(raised, 1)), "features": found}


def projected_stages() -> FusedStages:
    return FusedStages(projected=True)


class FusedLogits(PlainUNet):
    """Logits of two resolutions are joined: they are no features."""

    def __init__(self) -> None:
        super().__init__()
        self.side2, self.side1 = nn.Conv2d(8, 3, 1), nn.Conv2d(4, 3, 1)
        self.out = nn.Conv2d(9, 3, 1)
        self.side3 = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        e1 = self.enc1(x)
        e2 = self.enc2(self.pool(e1))
        e3 = self.enc3(self.pool(e2))
        d2 = self.dec2(torch.cat([self.up2(e3), e2], 1))
        d1 = self.dec1(torch.cat([self.up1(d2), e1], 1))
        sides = [self.side1(d1), self.side2(d2), self.side3(e3)]
        return self.out(torch.cat([functional.interpolate(s, size=x.shape[2:]) for s in sides], 1))


class PlainCNN(nn.Sequential):
    """Full resolution throughout."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv3d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv3d(4, 6, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv3d(6, 2, 1),
        )


class ShuffleNet(nn.Module):
    """Resolution raised by pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 4, stride=4), nn.ReLU())
        self.mid = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.PixelShuffle(2))
        self.dec2 = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.ReLU())
        self.shuffle = nn.PixelShuffle(2)
        self.dec1 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.dec1(self.shuffle(self.dec2(self.mid(self.down(x))))))


class RecursiveUNet(nn.Module):
    """Blocks within blocks, each returning cat(skip, up), as pix2pix has it."""

    def __init__(self, n: int, inner: nn.Module | None, outermost: bool = False) -> None:
        super().__init__()
        m = 2 * n
        self.down = nn.Sequential(nn.Conv2d(1 if outermost else n, m, 4, 2, 1), nn.ReLU())
        self.inner = inner
        k = 2 * m if inner is not None else m
        self.up = nn.Sequential(nn.ConvTranspose2d(k, n, 4, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(n, 2, 1) if outermost else None

    def forward(self, x):
        y = self.down(x)
        y = self.inner(y) if self.inner is not None else y
        y = self.up(y)
        return torch.cat([x, y], 1) if self.head is None else self.head(y)


class SkipSum(nn.Module):
    """A residual U-Net with strided convolutions and skips that are added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, 4, 3, padding=1)
        self.down = nn.Conv3d(4, 8, 2, stride=2)
        self.down_again = nn.Conv3d(8, 16, (2, 2, 1), stride=(2, 2, 1))
        self.raise_again = nn.ConvTranspose3d(16, 8, (2, 2, 1), stride=(2, 2, 1))
        self.raise_ = nn.ConvTranspose3d(8, 4, 2, stride=2)
        self.block = nn.Conv3d(8, 8, 3, padding=1)
        self.last_block = nn.Conv3d(4, 4, 3, padding=1)
        # In eval mode the dropout hands on the sum itself, which no other module returns.
        self.head = nn.Sequential(nn.Dropout(), nn.Conv3d(4, 2, 1), nn.Softmax(1))

    def forward(self, x):
        a = self.stem(x)
        b = self.down(a)
        y = b + self.raise_again(self.down_again(b))
        y = y + self.block(y)
        y = a + self.raise_(y)
        return self.head(y + self.last_block(y))


def recursive_unet() -> RecursiveUNet:
    return RecursiveUNet(4, RecursiveUNet(8, RecursiveUNet(16, None)), outermost=True)


#: Factory, shape of an example, and (name, stride, channels) of each stage.


TRUTH = [
    (PlainUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (SoftmaxUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (DictUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (SqueezeUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (GatedUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (SupervisedUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (EquallyFineUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (FusedUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (SharedUNet, (1, 16, 16), [("dec2", 2, 8), ("act", 1, 4)]),
    (PooledUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (RaisedLogits, (1, 32, 32), [("unet.dec2", 4, 8), ("unet.dec1", 2, 4)]),
    (TwoUNets, (1, 16, 16), [("two.dec2", 2, 8), ("two.dec1", 1, 4)]),
    (Wrapped, (1, 16, 16), [("net.dec2", 2, 8), ("net.dec1", 1, 4)]),
    (PaddedUNet, (1, 16, 16), [("up1", 2, 4), ("up2", 1, 4)]),
    (PaddedUNet, (1, 23, 21), [("up1", 23 / 11, 4), ("up2", 1, 4)]),
    (FunctionalUNet, (1, 8, 8, 8), [("conv4", 2, 6), ("conv5", 1, 5)]),
    (AutoEncoder, (1, 16, 16), [("decoder.1.1", 2, 4)]),
    (PyramidNet, (1, 16, 16), [("smooth2", 4, 6), ("smooth1", 2, 6)]),
    (DilatedNet, (1, 16, 16), [("backbone", 4, 8)]),
    (FusedStages, (1, 16, 16), [("stages.2", 4, 16), ("stages.1", 2, 8), ("stages.0", 1, 4)]),
    (projected_stages, (1, 16, 16), [(f"project.{i}", 2**i, 6) for i in (2, 1, 0)]),
    (FusedLogits, (1, 16, 16), [("dec2", 2, 8), ("side1", 1, 3)]),
    (PlainCNN, (1, 6, 6, 6), [("3", 1, 6)]),
    (ShuffleNet, (1, 16, 16), [("dec2", 2, 16), ("dec1", 1, 4)]),
    (recursive_unet, (1, 32, 32), [("inner.inner.up", 4, 16), ("inner.up", 2, 8), ("up", 1, 4)]),
    (SkipSum, (1, 8, 8, 8), [("block", 2, 8), ("head.0", 1, 4)]),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [8, 17, 25])
@pytest.mark.parametrize(("factory", "shape", "truth"), TRUTH)
def test_stages_are_those_a_person_would_name(factory, shape, truth, seed):
    torch.manual_seed(seed)
    network = factory()
    found = find_layers(network, "decoder", torch.zeros(1, *shape))
    assert [(layer.name, layer.stride[0], layer.channels) for layer in found] == truth
    assert len({layer.stride for layer in found}) == len(found)


@pytest.mark.parametrize(
    ("factory", "truth"),
    [
        (FusedStages, ["stages.2", "stages.1", "stages.0"]),
        (DilatedNet, ["backbone", "backbone.1"]),
        (PlainCNN, ["3"]),
    ],
)
def test_a_decoder_that_is_part_of_the_encoder_adds_nothing_to_all_stages(factory, truth):
    example = torch.zeros(1, 1, *[16] * (3 if factory is PlainCNN else 2))
    found = find_layers(factory(), "all", example)
    assert [layer.name for layer in found] == truth
