"""What the selectors of a bank share: settings, and how their findings are shown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from skte._sklearn import UNUSED, Interval, StrOptions
from skte._table import NONE
from skte._text import did_you_mean
from skte.bank import BankEntry, ModelBank
from skte.datasets import CaseList, read_case
from skte.estimators import Diagnosis, TransferabilityEstimator
from skte.extraction import CaseStore, FeatureCache, SegmentationFeatureExtractor
from skte.selection._answer import Answer, Findings, answer_of
from skte.selection._confidence import BankConfidence
from skte.selection._engine import Engine
from skte.selection._ranking import Ranking, Results, known_scores, results_table
from skte.selection._reference import Reference, twin_scores
from skte.selection._workers import ModelRecord

# Beyond these, images were not normalised; random phantoms and masked brains are within.
_RAW_MEAN, _RAW_SPREAD = 2.0, 5.0
_NAMED = 3  # models in a sentence


@dataclass(eq=False, repr=False)
class BankSelector(BaseEstimator):
    """What the selectors of a bank share."""

    estimator: TransferabilityEstimator | Mapping[str, TransferabilityEstimator] | None = None
    _: KW_ONLY
    extractor: SegmentationFeatureExtractor | None = None
    n_jobs: int | None = None
    device: str | torch.device | None = None
    cache: str | os.PathLike[str] | FeatureCache | None = None
    timeout: float | None = None
    error_score: str | float = "raise"
    reference: bool = True
    random_state: int | np.random.RandomState | None = 0
    verbose: int = 0

    # fit(bank, dataset) has no metadata to route; keep sklearn from inventing requests.
    __metadata_request__fit: ClassVar[dict[str, Any]] = {"bank": UNUSED, "dataset": UNUSED}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [TransferabilityEstimator, Mapping, None],
        "extractor": [SegmentationFeatureExtractor, None],
        "n_jobs": [Integral, None],
        "device": [str, torch.device, None],
        "cache": [str, os.PathLike, FeatureCache, None],
        "timeout": [Interval(Real, 0, None, closed="neither"), None],
        "error_score": [StrOptions({"raise"}), Interval(Real, None, None, closed="both"), np.nan],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "reference": ["boolean"],
    }

    def _engine(self, **changed: Any) -> Engine:
        names = BankSelector._parameter_constraints.keys() - {"estimator", "reference"}
        shared = {name: getattr(self, name) for name in names}
        return Engine.from_settings(self.estimator, **{**shared, **changed})

    def diagnose(self, name: str | None = None, estimator: str | None = None) -> Diagnosis:
        """Report what drives a model's score; its features are extracted once more, or cached.

        Parameters
        ----------
        name : str, optional
            The model. Default: the first of ``ranking_``.
        estimator : str, optional
            Name of the estimator. Default: the first one.

        Returns
        -------
        Diagnosis
            By layer, and by class and case where the estimator knows them.
        """
        check_is_fitted(self, "scores_")
        # A single one has no key, but a name.
        known = {k or type(one).__name__.lower(): one for k, one in self.estimators_.items()}
        key = next(iter(known)) if estimator is None else estimator
        if key not in known:
            raise ValueError(f"There is no estimator {key!r}: {did_you_mean(key, known)}")
        extractor = clone(self.extractor_).set_params(entry=self.bank_[name or self.best_name_])
        features = extractor.extract(self.dataset_, CaseStore(0))
        found: Diagnosis = clone(known[key]).fit(features).diagnose()
        return found

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags

    def _collect(
        self,
        engine: Engine,
        models: ModelBank,
        cases: CaseList,
        records: Sequence[ModelRecord],
        scores: Mapping[str, NDArray[np.float64]],
        ranks: NDArray[np.float64],
        references: Sequence[Reference],
        *,
        confidences: Mapping[str, BankConfidence] = MappingProxyType({}),
        agreement: float = np.nan,
        n_cases: Sequence[int] | None = None,
    ) -> None:
        """Set what is found; everything is in bank order, `n_cases` is of a race."""
        first = next(iter(scores))
        self.bank_, self.dataset_, self.extractor_ = models, cases, engine.extractor
        self._fitted_engine = engine
        self.date_: str = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        self.random_state_ = engine.random_state
        self.estimators_: dict[str, TransferabilityEstimator] = dict(engine.estimators)
        self.names_: list[str] = [record.name for record in records]
        self.scores_: NDArray[np.float64] = scores[first]
        self.ranks_: NDArray[np.float64] = ranks
        self.reference_: list[Reference] = list(references)
        by_rank = np.argsort(ranks, kind="stable")  # failed models have none, and are last
        order = [self.names_[i] for i in by_rank]
        columns = {k: values[by_rank] for k, values in known_scores(records, scores).items()}
        untrained = [entry.is_untrained for entry in models]
        marked = [name for name, is_so in zip(self.names_, untrained, strict=True) if is_so]
        seen = [n_cases[i] for i in by_rank if not np.isnan(ranks[i])] if n_cases else []
        # Where a race dropped models, only the estimator that did has an opinion of them all.
        self.answer_: Answer = answer_of(
            Findings(
                order,
                {first: columns[first]} if len(set(seen)) > 1 else columns,
                engine.estimators,
                layers=engine.extractor.layers if _is_studied(engine.extractor) else "",
                n_cases=len(cases),
                untrained=marked,
                guessed=[r.name for r in records if r.layers_certainty == "guess"],
                raw_images=_raw_images(list(models), cases),
                references=references,
                confidence=confidences.get(first),
                agreement=agreement,
                ranks=ranks[by_rank],
                copies=[r.name for r in records if r.is_copy],
                void={key: [r.name for r in records if key in r.void] for key in scores},
                seen=seen,
                not_understood=list(models.not_understood),
            )
        )
        relative = engine.estimators[first].tags.relative_to_bank  # here, of a bank of one more
        twins = twin_scores(self.names_, [] if relative else references)
        facts = {"cases": [n_cases[i] for i in by_rank]} if n_cases is not None else {}
        self.ranking_: Ranking = Ranking(
            order,
            columns[first],
            confidences.get(first),
            ranks=ranks[by_rank],
            columns=columns if first else None,
            facts=facts | _facts(records, twins, by_rank),
            untrained=marked,
            answer=self.answer_,
        )
        self.best_name_: str = order[0]
        self.results_: Results = results_table(records, scores, ranks, confidences, untrained)
        self.results_["untrained_twin"] = twins
        places = {name: i for i, name in enumerate(self.answer_.short_list, start=1)}
        self.results_["choice"] = np.array([places.get(name, np.nan) for name in self.names_])
        self.results_["no_answer"] = np.full(len(records), " ".join(self.answer_.no_answer), object)
        if n_cases is not None:
            self.results_["n_cases"] = np.array(n_cases)


def _facts(
    records: Sequence[ModelRecord], twins: NDArray[np.float64], order: NDArray[np.intp]
) -> dict[str, list[Any]]:
    """Columns beside the scores, best first: what an estimator has to beat."""
    known = {
        "parameters": [record.n_parameters or np.nan for record in records],
        "finest width": [record.width or np.nan for record in records],
        "untrained twin": [float(f"{score:.4g}") for score in twins],
        "zero-shot Dice": [round(record.zero_shot, 3) for record in records],
    }
    return {
        title: [NONE if np.isnan(column[i]) else column[i] for i in order]
        for title, column in known.items()
        if title in ("parameters", "finest width") or not np.isnan(column).all()
    }


def _raw_images(entries: Sequence[BankEntry], cases: Sequence[Any]) -> str:
    """Say which models without preprocessing get images that look raw; empty where none do."""
    names = [entry.name for entry in entries if not entry.preprocessing]
    if not names:
        return ""
    case = read_case(cases[0])
    image = case.image.float()
    mean, spread = float(image.mean()), float(image.std(correction=0))
    if abs(mean) <= _RAW_MEAN and 1 / _RAW_SPREAD <= spread <= _RAW_SPREAD:
        return ""
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" * (len(names) > _NAMED))
    return (
        f"No preprocessing for {shown}: images go in as they are (case {case.case_id} has mean "
        f"{mean:.4g} and standard deviation {spread:.4g}). If the networks were trained on "
        'normalised images, add preprocessing: ["ZNormalization"] to the manifest, or rank '
        'ModelBank.from_modules(networks, preprocessing=["ZNormalization"]).'
    )


def _is_studied(extractor: SegmentationFeatureExtractor) -> bool:
    """Whether windows and voxels are those by which scores were judged."""
    own, plain = extractor.get_params(), type(extractor)().get_params()
    decisive = ("overlap", "window_size", "n_class_samples")
    return own["samples"] != "foreground" and all(own[name] == plain[name] for name in decisive)
