"""Rank pre-trained segmentation networks for a new dataset without fine-tuning them."""

import os
import sys


def _leave_current_folder() -> None:
    """Remove the current folder, which ``python -m skte`` searches first, from the path."""
    # Programs of the user that import skte keep their path.
    arguments = getattr(sys, "argv", [])
    # While Python locates what ``-m`` names, and only then, the first argument is "-m".
    if arguments[:1] != ["-m"] or len(sys.orig_argv) < len(arguments) or sys.flags.safe_path:
        return
    named = sys.orig_argv[-len(arguments)]
    if named.partition(".")[0] != "skte" and not (named[:1] == "-" and named.endswith("mskte")):
        return
    here = sys.path.pop(0)
    if os.path.dirname(os.path.dirname(os.path.abspath(__file__))) == os.path.abspath(here):
        sys.path.append(here)  # skte itself lies there, uninstalled, and its workers import it


# Before anything is imported that Python has not loaded already: it could come from there.
_leave_current_folder()

from importlib import import_module  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from skte._memory import memory_limit  # noqa: E402

if TYPE_CHECKING:
    from skte import (  # noqa: F401
        bank,
        cli,
        datasets,
        demo,
        estimators,
        evaluation,
        exceptions,
        extraction,
        features,
        metrics,
        report,
        selection,
    )
    from skte.bank import BankEntry, ModelBank
    from skte.estimators import (
        CCFV,
        GBC,
        KNN,
        LEEP,
        NCE,
        NLEEP,
        PARC,
        RCFV,
        SFDA,
        CrossCaseProbe,
        Ensemble,
        HScore,
        LogME,
        RankMe,
        TransferabilityEstimator,
        TransRate,
    )
    from skte.extraction import SegmentationFeatureExtractor
    from skte.features import FeatureBlock, FeatureSet
    from skte.metrics import weighted_kendall_score
    from skte.selection import HalvingModelBankSelector, ModelBankSelector

__version__ = "0.2.0"

__all__ = [
    "BankEntry",
    "CCFV",
    "CrossCaseProbe",
    "Ensemble",
    "FeatureBlock",
    "FeatureSet",
    "GBC",
    "HScore",
    "HalvingModelBankSelector",
    "KNN",
    "LEEP",
    "LogME",
    "ModelBank",
    "ModelBankSelector",
    "NCE",
    "NLEEP",
    "PARC",
    "RCFV",
    "RankMe",
    "SFDA",
    "SegmentationFeatureExtractor",
    "TransRate",
    "TransferabilityEstimator",
    "__version__",
    "datasets",
    "memory_limit",
    "weighted_kendall_score",
]

_ROOMS = (
    "bank", "cli", "datasets", "demo", "estimators", "evaluation", "exceptions", "extraction",
    "features", "metrics", "report", "selection",
)  # fmt: skip
#: Where names of ``__all__`` come from; the others are estimators.
_ORIGINS = {
    "BankEntry": "bank",
    "FeatureBlock": "features",
    "FeatureSet": "features",
    "ModelBank": "bank",
    "HalvingModelBankSelector": "selection",
    "ModelBankSelector": "selection",
    "SegmentationFeatureExtractor": "extraction",
    "weighted_kendall_score": "metrics",
}


if not TYPE_CHECKING:  # which would take any name for one of skte

    def __getattr__(name: str) -> Any:
        """Import what is asked for: torch and scikit-learn take seconds, and no help needs them."""
        if name in _ROOMS:
            return import_module(f"skte.{name}")
        if name not in __all__:
            raise AttributeError(f"module 'skte' has no attribute {name!r}")
        value = getattr(import_module(f"skte.{_ORIGINS.get(name, 'estimators')}"), name)
        globals()[name] = value  # and not again
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
