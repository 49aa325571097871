"""What can be chosen: names of our own, and what other packages add by entry points.

Nothing that a name stands for is imported for it: the shell lists them in its help. A test
holds the names to the registries.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from skte._text import clean_text
from skte.exceptions import SkteWarning

_T = TypeVar("_T")

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


def load_plugins(
    group: str, own: Mapping[str, _T], name_of: Callable[[str, Any], str]
) -> dict[str, _T]:
    """Return objects by name: our own, then those of entry points; what fails is a warning."""
    # `name_of` takes the name of the entry point and the object, which it checks.
    found = dict(own)
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        try:
            problem = origin_problem(point.module.partition(".")[0])
            if problem:
                raise ImportError(problem)
            plugin = point.load()
            name = name_of(point.name, plugin)
            if name in found:
                raise ValueError(f"the name {name!r} is taken")
        except (Exception, SystemExit) as error:  # a third party's module may raise anything
            warnings.warn(
                f"Entry point {point.name!r} of the group {group!r} ({point.value}) is left out: "
                f"{type(error).__name__}: {clean_text(error)}. Fix or uninstall the package "
                "that declares it.",
                SkteWarning,
                stacklevel=3,
            )
        else:
            found[name] = plugin
    return found


def origin_problem(top: str) -> str:
    """Return why a package may not be imported: it is a file of the current folder."""
    if top in sys.modules:
        return ""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ""
    places = [spec.origin] if spec and spec.origin else []
    places += list(spec.submodule_search_locations or ()) if spec else []
    here = os.path.realpath(os.curdir)
    for place in places:
        real = os.path.realpath(place)
        parents = (os.path.dirname(real), os.path.dirname(os.path.dirname(real)))
        if here in parents[: 2 if os.path.basename(real) == "__init__.py" else 1]:
            return (
                f"{top!r} would be imported from the current folder, {here}, and not from what is "
                "installed; change to another folder"
            )
    return ""
