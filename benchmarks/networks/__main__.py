"""Find the layers of many networks, check each by the locality probe, and write the table."""

from __future__ import annotations

import argparse
import json
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks._provenance import provenance, write_json
from benchmarks.networks._zoo import Spec, specs
from skte.bank import LayerInfo, find_layers
from skte.bank._probe import probe_layers  # known layers are probed here, too
from skte.exceptions import BankError

_RESULT = Path(__file__).parent / "results" / "networks.json"
_PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "layers.md"
_BEGIN, _END = "<!-- table: python -m benchmarks.networks -->", "<!-- end of table -->"
_LIBRARIES = (
    "monai", "dynamic_network_architectures", "segmentation_models_pytorch", "timm",
    "transformers", "torchvision",
)  # fmt: skip
_SMOKE = ("MONAI UNet 2-D", "MONAI BasicUNet++")


def main() -> None:
    """Build, find and probe; networks that are in the result file already are kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="two networks, no file")
    parser.add_argument("--again", action="store_true", help="also those already in the file")
    parser.add_argument("--only", default="", help="networks with this in their names, again")
    parser.add_argument("--page", action="store_true", help="only write the table of the docs")
    args = parser.parse_args()
    if args.page:
        write_page(json.loads(_RESULT.read_text())["networks"])
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep = _RESULT.exists() and not (args.again or args.smoke)
    known = json.loads(_RESULT.read_text()) if keep else {"networks": [], "libraries": {}}
    rows = {row["network"]: row for row in known["networks"]}
    libraries = known["libraries"] | _versions()  # rows of those that are not here are kept, too
    for name, spec in specs().items():
        wanted = args.only.lower() in name.lower() if args.only else name not in rows
        if not wanted or (args.smoke and name not in _SMOKE):
            continue
        rows[name] = {"network": name, **examine(spec)}
        print(line(rows[name]), flush=True)
        if not args.smoke:
            _RESULT.parent.mkdir(exist_ok=True)
            listed = [rows[key] for key in specs() if key in rows]
            write_json(_RESULT, {**provenance(libraries=libraries), "networks": listed})


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def examine(spec: Spec) -> dict[str, Any]:
    """Build a network and find its layers in both modes."""
    if find_spec(spec.library) is None:
        return {"refused": f"could not be built here: {spec.library} is not installed"}
    torch.manual_seed(0)
    try:
        network = spec.build().eval()
    except Exception as error:
        return {"refused": f"could not be built here: {type(error).__name__}: {error}"[:300]}
    example = torch.zeros(1, spec.channels, *[spec.edge] * spec.n_axes)
    found: dict[str, Any] = {"library": spec.library, "window": spec.edge}
    for mode in ("auto", "encoder"):
        begun = time.perf_counter()
        try:
            layers = find_layers(network, mode, example)
        except BankError as error:
            found[mode] = {"refused": str(error)}
            continue
        seconds = time.perf_counter() - begun
        known = mode == "auto" and all(a.locality is None for a in layers)
        probed = probe_layers(network, layers, example) if known else layers
        pairs = zip(layers, probed, strict=True)
        found[mode] = {"layers": [_plain(a, b) for a, b in pairs], "seconds": round(seconds, 2)}
    return found


def _plain(layer: LayerInfo, probed: LayerInfo) -> dict[str, Any]:
    r = [value for value in probed.locality or () if value == value]
    return {
        "name": layer.name,
        "stride": list(layer.stride),
        "channels": layer.channels,
        "form": layer.form,
        "certainty": layer.certainty,
        "unpadded": layer.start is not None,
        "r": round(min(r), 2) if r else None,
    }


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    if "refused" in row:
        return f"| {row['network']} | {row['refused']} | |"
    cells = []
    for mode in ("auto", "encoder"):
        found = row[mode]
        if "refused" in found:
            cells.append(f"refused: {found['refused'].split(' Name ')[0][:200]}")
            continue
        shown = [
            f"`{a['name']}` {a['stride'][0]:.3g} ({a['channels']}"
            f"{'' if a['form'] == 'map' else ', ' + a['form']}"
            f"{', unpadded' if a['unpadded'] else ''})"
            for a in found["layers"]
        ]
        order = ("known", "checked", "guess")
        worst = max((a["certainty"] for a in found["layers"]), key=order.index)
        rs = [a["r"] for a in found["layers"] if a["r"] is not None]
        r = f", r ≥ {min(rs):.2f}" if rs else ""
        cells.append(f"**{worst}**{r}: {', '.join(shown)}")
    return f"| {row['network']} | {' | '.join(cells)} |"


def write_page(rows: list[dict[str, Any]]) -> None:
    """Put the table between its marks in the documentation."""
    table = ['| network | layers="auto" | layers="encoder" |', "|---|---|---|", *map(line, rows)]
    before, rest = _PAGE.read_text().split(_BEGIN)
    after = rest.split(_END)[1]
    _PAGE.write_text("\n".join([before + _BEGIN, "", *table, "", _END]) + after)


if __name__ == "__main__":
    main()
