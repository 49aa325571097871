"""How to start fine-tuning from a model: commands of its own tool, or a few lines of PyTorch."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from sklearn.utils.validation import check_is_fitted
from torch import nn

from skte.bank import BankEntry
from skte.report._results import FittedSelector

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ZIP = ".zip"
_TRAINING = ("configs/train.json", "configs/train.yaml", "configs/train.yml")


def next_step(
    selector: FittedSelector, name: str | None = None, *, n_classes: int | None = None
) -> str:
    """Write out how to start fine-tuning from a model of a fitted selector.

    Parameters
    ----------
    selector : ModelBankSelector or HalvingModelBankSelector
        Fitted.
    name : str, optional
        The model. Default: the first of the short list of the answer, or else of the ranking.
    n_classes : int, optional
        Classes of the target, background included. Default: what the dataset's names of
        classes say, or else a placeholder.

    Returns
    -------
    str
        Commands of nnU-Net or MONAI bundles for models from there, else lines of Python with
        preprocessing and a new head. Where the ranking has no answer, a comment says so first.

    Examples
    --------
    >>> from skte import LogME, ModelBankSelector
    >>> from skte.datasets import make_phantoms
    >>> from skte.demo import small_unet
    >>> from skte.report import next_step
    >>> bank = {name: small_unet(widths=(4, 8)) for name in ("a", "b")}
    >>> cases = make_phantoms(3, size=(16, 16, 16))
    >>> selector = ModelBankSelector(LogME(), reference=False).fit(bank, cases)
    >>> print(next_step(selector, "a", n_classes=3))  # doctest: +ELLIPSIS
    # a, plain PyTorch
    import torch
    ...
    network.set_submodule("head", torch.nn.Conv3d(4, 3, kernel_size=(1, 1, 1)))
    ...
    """
    check_is_fitted(selector, "results_")
    chosen = name or next(iter((*selector.answer_.short_list, *selector.ranking_)))
    if n_classes is None:
        names = selector.dataset_[0].get("label_names") or {}
        n_classes = 1 + max(names) if names else None
    source = f"selector.bank_[{chosen!r}]"
    doubts = [f"# {line}" for line in selector.answer_.no_answer]
    return "\n".join([*doubts, fine_tuning(selector.bank_[chosen], source, n_classes)])


def fine_tuning(entry: BankEntry, source: str, n_classes: int | None) -> str:
    """Write out how to start fine-tuning from an entry of a bank."""
    kind = str(entry.provenance.get("format", ""))
    if kind == "nnU-Net v2" and entry.weights is not None:
        return _nnunet(entry, Path(entry.weights))
    if kind == "MONAI bundle" and entry.weights is not None:
        beside = Path(entry.weights).parent
        folder = beside.parent if beside.name == "models" else beside
        config = next((name for name in _TRAINING if (folder / name).is_file()), None)
        if config is not None:
            return _bundle(entry, folder, config, n_classes)
    return _pytorch(entry, source, n_classes)


def _nnunet(entry: BankEntry, weights: Path) -> str:
    """Commands of nnU-Net: its plans move to the target, its weights start the training."""
    # nnU-Net names the folder of a model by trainer, plans and configuration.
    parts = weights.parent.parent.name.split("__")
    known, plans, shape = parts if len(parts) == 3 else ("nnUNetTrainer", "nnUNetPlans", "")
    trainer = str(entry.provenance.get("trainer", known))
    configuration = str(entry.provenance.get("configuration", shape))
    dataset, model = str(entry.provenance["dataset"]), weights.parent.parent
    lines = [f"# {entry.name}, nnU-Net v2. TARGET is the id of your dataset in nnUNet_raw."]
    at = next((i for i, part in enumerate(weights.parts) if part.endswith(_ZIP)), None)
    if at is not None:
        archive, inside = Path(*weights.parts[: at + 1]), Path(*weights.parts[at + 1 :])
        lines.append(f"unzip {shlex.quote(str(archive))} -d unzipped")
        weights, model = Path("unzipped") / inside, Path("unzipped") / inside.parent.parent
    kept = f'"$nnUNet_preprocessed"/{shlex.quote(dataset)}'
    moved = f"{plans}From{dataset.partition('_')[0].removeprefix('Dataset')}"
    name = shlex.quote(dataset)
    return "\n".join([
        *lines,
        "nnUNetv2_extract_fingerprint -d TARGET",
        "# plans of the model, unless its dataset was planned on this machine",
        f"mkdir -p {kept} && cp -n {shlex.quote(str(model / 'plans.json'))} {kept}/{plans}.json",
        f"nnUNetv2_move_plans_between_datasets -s {name} -t TARGET -sp {plans} -tp {moved}",
        f"nnUNetv2_preprocess -d TARGET -plans_name {moved} -c {configuration}",
        f"nnUNetv2_train TARGET {configuration} 0 -tr {trainer} -p {moved} \\",
        f"    -pretrained_weights {shlex.quote(str(weights))}",
        "# All weights are taken over but those of the segmentation layers. The plans bring the",
        "# model's spacing, patch and normalisation along.",
    ])  # fmt: skip


def _bundle(entry: BankEntry, folder: Path, config: str, n_classes: int | None) -> str:
    """Write a command of MONAI: the bundle's own training, from its weights."""
    assert entry.weights is not None
    weights = Path(entry.weights)
    shown = str(weights.relative_to(folder)) if weights.is_relative_to(folder) else str(weights)
    state = f"torch.load({json.dumps(shown, ensure_ascii=False)}, weights_only=True)"
    for key in (entry.state_key or "").split("."):
        state += f"[{json.dumps(key)}]" if key else ""
    copied = f"$monai.networks.utils.copy_model_state(@network_def, {state})"
    return "\n".join([
        f"# {entry.name}, MONAI bundle. TARGET is the folder of your dataset, laid out as the",
        f"# bundle's {config} expects it.",
        f"cd {shlex.quote(str(folder))}",
        f"python -m monai.bundle run --config_file {config} --bundle_root . \\",
        f"    --dataset_dir TARGET '--network_def#out_channels' {n_classes or 'N_CLASSES'} \\",
        f"    --initialize {shlex.quote(json.dumps([copied]))}",
        "# Weights that fit are taken over; the last convolution is new where the number of",
        "# classes differs.",
    ])  # fmt: skip


def _pytorch(entry: BankEntry, source: str, n_classes: int | None) -> str:
    """Lines of Python: the network, its preprocessing and a new head."""
    found = _head(entry.load())
    head = ["# No convolution was found that could be the head: replace yours here."]
    if found is not None:
        name, convolution = found
        head = [
            f"# The last convolution, {name}, gets new weights: check that it is the head.",
            f"network.set_submodule({json.dumps(name)}, "
            f"{_written(convolution, n_classes or 'N_CLASSES')})",
        ]
    *before, found_by = source.splitlines()
    lines = [f"# {entry.name}, plain PyTorch", "import torch", *before]
    steps = ", ".join(entry.step_names)
    preprocess = f"entry.transform()  # {steps}" if steps else "None  # images go in as they are"
    return "\n".join([
        *lines,
        f"entry = {found_by}",
        "network = entry.load()",
        *head,
        f"preprocess = {preprocess}",
        "optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)",
        "network.train()",
        "# for image, label in your_loader:  # each image after preprocess",
        "#     loss = your_loss(network(image), label)",
    ])  # fmt: skip


def _head(network: nn.Module) -> tuple[str, nn.Module] | None:
    """Find the convolution that is defined last."""
    found = [(name, m) for name, m in network.named_modules() if isinstance(m, _CONVOLUTIONS)]
    return found[-1] if found and found[-1][0] else None


def _written(convolution: Any, n_classes: int | str) -> str:
    """Python that makes a convolution with another number of outputs."""
    size = convolution.kernel_size
    given = f", kernel_size={size!r}"
    for key, usual in {"stride": 1, "padding": 0, "dilation": 1}.items():
        value = getattr(convolution, key)
        given += f", {key}={value!r}" if value not in (usual, (usual,) * len(size)) else ""
    given += ", bias=False" if convolution.bias is None else ""
    kind = type(convolution).__name__
    return f"torch.nn.{kind}({convolution.in_channels}, {n_classes}{given})"
