"""Rank two published networks beside untrained ones of the same architecture.

    pip download --no-deps deepbet==1.0.2
    python -m benchmarks.deepbet --wheel deepbet-1.0.2-py3-none-any.whl --data DIR

The wheel (MIT licence) holds two 3-D networks that extract brains from MR images, as
TorchScript. They are rebuilt here as modules, whose output equals that of the files, and
ranked for the hippocampus, together with untrained networks of the same architecture. A score
that ranks an untrained network first cannot tell training from chance. ``--smoke`` needs no wheel.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._provenance import data_folder, provenance, write_json
from skte import BankEntry
from skte.datasets import load_msd, make_phantoms
from skte.estimators import all_estimators
from skte.selection import ModelBankSelector, extractor_for

RESULTS = Path(__file__).parent / "results"
TARGET = "Task04_Hippocampus"
FILES = {"brain": "data/models/model.pt", "bounding box": "data/models/bbox_model.pt"}
SEEDS = (0, 1, 2)
PREPROCESSING = [
    {"name": "RescaleIntensity", "percentiles": [0.5, 99.5]},
    {"name": "ZNormalization"},
]


class LinkNet3d(nn.Module):
    """The architecture of both files; names of parameters are theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.init = nn.Sequential(
            nn.Conv3d(1, 16, 7, 2, 3, bias=False), nn.InstanceNorm3d(16), nn.ReLU(), _pool()
        )
        widths = (16, 16, 32, 64, 128)
        for i in range(4):
            setattr(self, f"down{i}", _Down(widths[i], widths[i + 1], stride=1 if i == 0 else 2))
        for i in range(4):
            setattr(self, f"up{i}", _up(widths[4 - i], widths[3 - i], stride=1 if i == 3 else 2))
        self.tp_conv1 = nn.Sequential(
            nn.ConvTranspose3d(16, 8, 3, 2, 1, 1), nn.InstanceNorm3d(8), nn.ReLU()
        )
        self.conv = nn.Sequential(nn.Conv3d(8, 8, 3, 1, 1), nn.InstanceNorm3d(8), nn.ReLU())
        self.tp_conv2 = nn.ConvTranspose3d(8, 2, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities of background and foreground."""
        skips = [self.init(x)]
        for i in range(4):
            skips.append(getattr(self, f"down{i}")(skips[-1]))
        x = skips.pop()
        for i in range(4):
            skip = skips.pop()
            x = getattr(self, f"up{i}")(x) + skip
        return torch.softmax(self.tp_conv2(self.conv(self.tp_conv1(x))), 1)


def _pool() -> nn.Module:
    return nn.MaxPool3d(3, 2, 1)


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv3d(before, after, 3, stride, 1, bias=False), nn.InstanceNorm3d(after), nn.ReLU(),
            nn.Conv3d(after, after, 3, 1, 1, bias=False), nn.InstanceNorm3d(after),
        )  # fmt: skip
        self.downsample: nn.Module = nn.Identity()
        if before != after:
            self.downsample = nn.Sequential(
                nn.Conv3d(before, after, 1, stride, bias=False), nn.InstanceNorm3d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.double_conv(x) + self.downsample(x))


class _Down(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.block1, self.block2 = _Block(before, after, stride), _Block(after, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(self.block1(x))


def _up(before: int, after: int, stride: int) -> nn.Module:
    inner = before // 4

    def step(layer: nn.Module, width: int) -> nn.Sequential:
        return nn.Sequential(layer, nn.InstanceNorm3d(width), nn.ReLU())

    up = nn.ConvTranspose3d(inner, inner, 3, stride, 1, stride - 1, bias=False)
    return nn.Sequential(
        OrderedDict(
            conv1=step(nn.Conv3d(before, inner, 1, bias=False), inner),
            tp_conv=step(up, inner),
            conv2=step(nn.Conv3d(inner, after, 1, bias=False), after),
        )
    )


def published(wheel: Path) -> dict[str, nn.Module]:
    """Rebuild the networks of the wheel, and check them against the files."""
    networks: dict[str, nn.Module] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name, file in FILES.items():
            script = torch.jit.load(io.BytesIO(archive.read(file))).eval()
            networks[name] = LinkNet3d().eval()
            networks[name].load_state_dict(script.state_dict())
            images = torch.rand(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                difference = (script(images) - networks[name](images)).abs().max().item()
            if difference > 1e-6:
                raise SystemExit(f"{name}: the rebuilt network differs by {difference:g}.")
    return networks


def untrained() -> dict[str, nn.Module]:
    """Networks of the same architecture with random weights."""
    networks = {}
    for seed in SEEDS:
        torch.manual_seed(seed)
        networks[f"untrained {seed}"] = LinkNet3d().eval()
    return networks


def rank(networks: dict[str, nn.Module], cases: list[Any], edge: int) -> dict[str, Any]:
    """Return the scores of every estimator, best first."""
    estimators = {n: cls() for n, cls in all_estimators().items() if n not in ("nce", "ensemble")}
    bank = [BankEntry.from_module(n, m, preprocessing=PREPROCESSING) for n, m in networks.items()]
    found: dict[str, Any] = {}
    for joined in (True, False):  # the probe reads all stages, the others the decoder's
        chosen = {n: e for n, e in estimators.items() if (n == "crosscaseprobe") == joined}
        selector = ModelBankSelector(
            chosen,
            extractor=extractor_for(chosen, window_size=edge),
            random_state=0,
            reference=False,  # three stand in the bank
        ).fit(bank, cases)
        names = list(selector.results_["name"])
        for key in chosen:
            scores = dict(zip(names, selector.results_[f"score_{key}"], strict=True))
            found[key] = dict(sorted(scores.items(), key=lambda item: -item[1]))
    return found


def main() -> None:
    """Rank and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wheel", type=Path, help="the wheel of deepbet 1.0.2")
    parser.add_argument("--data", help="folder of datasets (default: SKTE_DATA)")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="untrained networks on phantoms")
    args = parser.parse_args()
    if args.smoke:
        scores = rank(untrained(), make_phantoms(2, size=(64, 64, 64)), 64)
        print(len(scores), "estimators")
        return
    if args.wheel is None:
        parser.error("--wheel: pip download --no-deps deepbet==1.0.2")
    cases = load_msd(data_folder(args.data) / TARGET)[: args.cases]
    scores = rank(published(args.wheel) | untrained(), cases, 64)
    first = {key: next(iter(order)) for key, order in scores.items()}
    trained_first = {key: set(list(order)[:2]) == set(FILES) for key, order in scores.items()}
    content = {"first": first, "both_trained_first": trained_first, "scores": scores}
    write_json(
        RESULTS / f"{TARGET}.json",
        {**provenance(seed=0, wheel=args.wheel.name, n_cases=len(cases)), **content},
    )
    for key, order in scores.items():
        print(f"{key:15}", ", ".join(f"{name} {score:.4g}" for name, score in order.items()))


if __name__ == "__main__":
    main()
