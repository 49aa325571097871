"""The how-to page on banks: its commands run, its tables are those that were measured."""

import json
import re
import shlex
from pathlib import Path

import pytest

from skte.cli import main
from skte.datasets import make_phantoms
from skte.demo import write_msd
from tests.hub_server import hub_server
from tests.model_folders import require_monai, write_bundle, write_nnunet

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "banks.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (skte .*)$", PAGE, re.M)


@pytest.fixture
def place(dna, tmp_path, monkeypatch):
    """The folders that the page speaks of."""
    require_monai()
    results = tmp_path / "nnUNet_results"
    write_nnunet(results, dataset="Dataset009_Spleen")
    write_nnunet(results, dataset="Dataset010_Colon", seed=1)
    write_bundle(tmp_path, name="spleen_ct_segmentation")
    folder = tmp_path / "Task04_Hippocampus"
    write_msd(folder, make_phantoms(2, size=(16, 16, 16)), "phantoms")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(count):
    for command in COMMANDS[:count]:
        assert main(shlex.split(command)[1:]) == 0, command


@pytest.mark.slow
def test_the_page_s_models_are_ranked(place, capsys):
    assert len(COMMANDS) == 9
    run_page(8)
    out = capsys.readouterr().out
    assert "nnU-Net v2" in out
    assert "spleen_ct_segmentation" in out
    ranked = [line.split()[1] for line in out.splitlines() if re.match(r"^ *\d+ ", line)]
    spleen, colon = ("Dataset009_Spleen", "Dataset010_Colon")
    names = [f"{dataset}-3d_fullres-fold_0" for dataset in (spleen, colon)]
    assert sorted(ranked) == sorted([*names, "spleen_ct_segmentation", *names])
    code = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    namespace = {
        "folder": place / "nnUNet_results" / spleen / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    }
    for block in code:
        exec(block, namespace)
    assert namespace["bank"].not_understood == {}
    assert namespace["one"].provenance["dataset"] == spleen


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_page_s_download_runs(place, monkeypatch, capsys):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with hub_server(place / "spleen_ct_segmentation", "MONAI/example_bundle") as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert main(shlex.split(COMMANDS[-1])[1:]) == 0
    assert capsys.readouterr().out == "added MONAI--example_bundle\n"


def test_the_page_s_tables_are_those_measured():
    file = ROOT / "benchmarks" / "adapters" / "results" / "adapters.json"
    if not file.is_file():
        pytest.skip("the studies are not part of this copy")
    measured = json.loads(file.read_text())
    assert {row["difference"] for row in measured["preprocessing"]} == {0.0}
    assert f"in all {len(measured['preprocessing'])}\ncases" in PAGE
    for row in measured["layers"]:
        (line,) = re.findall(rf"^\| {re.escape(row['network'])} \|.*$", PAGE, re.M)
        shown = [
            (name, float(stride), int(channels))
            for name, stride, channels in re.findall(r"`([\w.]+)` ([\d.]+) \((\d+)\)", line)
        ]
        layers = [*row["decoder"], *row["encoder"]]
        assert shown == [(a["name"], a["stride"][0], a["channels"]) for a in layers]


def test_the_page_s_ranking_is_the_one_measured():
    file = ROOT / "benchmarks" / "mixed_bank" / "results" / "Task04_Hippocampus.json"
    if not file.is_file():
        pytest.skip("the studies are not part of this copy")
    measured = json.loads(file.read_text())
    models = [row for row in measured["models"] if not row["reference"]]
    assert len(models) == 6
    for place, row in enumerate(sorted(models, key=lambda row: row["rank"])):
        saved = measured["bank"][row["name"]]
        scores = [
            f"{row[f'score_{name}']:.4g} ({row[f'rank_{name}']})"
            for name in ("ccfv", "logme", "leep", "gbc", "transrate")
        ]
        cells = [row["name"], f"{saved['format']}, `{saved['weights']}`", *scores]
        lines = PAGE.splitlines()
        head = lines.index("| model | saved as | ccfv | logme | leep | gbc | transrate |")
        assert lines[head + 2 + place] == f"| {' | '.join(cells)} |"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGE):
        assert (ROOT / "docs" / "how-to" / target).is_file(), target
