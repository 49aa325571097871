"""Names of what can be chosen, known without importing what they stand for.

The shell lists them in its help. A test holds them to the registries.
"""

from __future__ import annotations

from importlib.metadata import entry_points

__all__ = ["ESTIMATORS", "LAYER_SETS", "LAYOUTS", "READERS", "RECOMMENDED", "with_plugins"]

#: Estimators, as `skte.estimators.all_estimators` names them.
ESTIMATORS = (
    "ccfv", "crosscaseprobe", "ensemble", "gbc", "hscore", "knn", "leep", "logme", "nce",
    "nleep", "parc", "rcfv", "rankme", "sfda", "transrate",
)  # fmt: skip
#: Those that rank where none is named, the one that decides first.
RECOMMENDED = ("crosscaseprobe", "logme", "hscore", "knn")
#: What stands for stages of a network, in place of a list of modules.
LAYER_SETS = ("decoder", "encoder", "all", "bottleneck+decoder")
#: Layouts of datasets.
LAYOUTS = ("msd", "nnunet", "bids", "dicom", "folder", "csv")
#: Formats of models.
READERS = ("manifest bank.yaml", "nnssl", "nnU-Net v2", "MONAI bundle", "exported program")


def with_plugins(names: tuple[str, ...], group: str) -> tuple[str, ...]:
    """Return names and those that other packages declare, of which none is imported."""
    return tuple(dict.fromkeys([*names, *(point.name for point in entry_points(group=group))]))
