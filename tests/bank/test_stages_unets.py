"""Decoder stages of U-Nets as people write them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from skte.bank import find_decoder_layers


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


#: Factory, shape of an example, and (name, stride, channels) of each stage.
TRUTH = [
    (PlainUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (SoftmaxUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (DictUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (SqueezeUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (GatedUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (SupervisedUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (FusedUNet, (1, 16, 16), [("dec2", 2, 8), ("dec1", 1, 4)]),
    (SharedUNet, (1, 16, 16), [("dec2", 2, 8), ("act", 1, 4)]),
    (Wrapped, (1, 16, 16), [("net.dec2", 2, 8), ("net.dec1", 1, 4)]),
    (PaddedUNet, (1, 16, 16), [("up1", 2, 4), ("up2", 1, 4)]),
    (PaddedUNet, (1, 23, 21), [("up1", 23 / 11, 4), ("up2", 1, 4)]),
]


@pytest.mark.parametrize(("factory", "shape", "truth"), TRUTH)
def test_stages_are_those_a_person_would_name(factory, shape, truth):
    network = factory()
    found = find_decoder_layers(network, torch.zeros(1, *shape))
    assert [(layer.name, layer.stride[0], layer.channels) for layer in found] == truth
    assert len({layer.stride for layer in found}) == len(found)
