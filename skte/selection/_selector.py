"""Rank a bank of models on a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_is_fitted

from skte._sklearn import UNUSED, Interval, fit_context, with_callbacks
from skte.bank import BankLike, ModelBank, load_bank
from skte.datasets import CaseList, DatasetLike
from skte.estimators import TransferabilityEstimator
from skte.metrics import align_performance, rank_scores, weighted_kendall_score
from skte.selection._base import BankSelector
from skte.selection._confidence import BankConfidence, without_each
from skte.selection._engine import Engine, check_not_all_failed
from skte.selection._ranking import known_scores
from skte.selection._reference import (
    REFERENCE_LEVEL,
    Reference,
    confidence_of,
    find_references,
)
from skte.selection._workers import ModelRecord

# Cases, and what needs as many, without and with confidence.
_NEEDED = (
    (2, "a ranking needs at least two labelled cases, or it is about that case alone."),
    (
        3,
        "confidence_level resamples cases and needs at least three. Label more, or leave it "
        "(--confidence) out.",
    ),
)
_LEAST_TO_AGREE = 4  # models; of fewer, an agreement is chance


@dataclass(eq=False, repr=False)
class ModelBankSelector(CallbackSupportMixin, BankSelector):
    """Rank the models of a bank by how well they should transfer to a dataset.

    Each model is run over the cases once; no model is trained. All models are compared at
    the same sampled voxels.

    Parameters
    ----------
    estimator : TransferabilityEstimator or mapping of str to TransferabilityEstimator, optional
        What scores a model. With a mapping, all estimators share one extraction
        and the first one ranks. Default: `skte.estimators.recommended_estimators`.
    extractor : SegmentationFeatureExtractor, optional
        Settings of the extraction (default: `extractor_for` the estimators); its ``entry``,
        ``random_state`` and (where given here) ``device`` are set for each model.
    n_jobs : int, optional
        Models worked on in parallel processes, as in joblib; the result is the same.
    device : str or torch.device, optional
        Where the models run. Default: the extractor's, else a GPU if there is one. With
        several GPUs and ``n_jobs`` above 1, the models take turns on them.
    cache : path-like or FeatureCache, optional
        Folder where features are kept, so that no network runs twice for them. Default: the
        extractor's, else none.
    timeout : float, optional
        Seconds that a model may take; one that takes longer is a failure (see `error_score`),
        and so is one whose process dies. Models then run in processes of their own.
    confidence_level : float, optional
        0.9, for instance: cases (at least three) are resampled, and ``confidence_``, ``results_``
        and ``ranking_`` show intervals, possible ranks, and models that cannot be separated.
    n_resamples : int, default=1000
        Draws for ranks and ties, seeded by `random_state`.
    error_score : "raise" or float, default="raise"
        Score of a model that fails, which has no rank. "raise" raises the error; otherwise a
        `FitFailedWarning` names the model, and the reason is in ``results_["error"]``.
    reference : bool, default=True
        Whether an untrained twin of every architecture is scored as well. It takes no part in
        the ranking; where it is not clearly below the leader (at 90 %, or `confidence_level`),
        the answer says so first.
    random_state : int, RandomState instance or None, default=0
        Seed of the sampled voxels.
    verbose : int, default=0
        Above 0, one line is printed for each model. For a progress bar use
        ``set_callbacks(sklearn.callback.ProgressBar())``.

    Attributes
    ----------
    ranking_ : Ranking
        Model names, best first; its repr is the answer: sentences around a table.
    answer_ : Answer
        The sentences: which models to fine-tune, how sure that is, what speaks against it.
    best_name_ : str
        The first of ``ranking_``.
    ranks_, scores_ : ndarray of shape (n_models,)
        Rank (1 for the best; equal scores share one; NaN for models that failed) and score
        (higher is better) of each model, in bank order.
    names_ : list of str
        Names of the models in bank order.
    estimators_ : dict of str to TransferabilityEstimator
        The estimators by name, not fitted; a single one has the name "".
    parts_ : list of mapping
        What the (first) estimator learnt of each model, for its ``combine``; None
        where the model failed.
    date_ : str
        When it was fitted.
    reference_ : list of Reference
        What each estimator says of each untrained twin; empty without `reference`.
    agreement_ : float
        Mean weighted Kendall correlation between the orders of several estimators; NaN where
        there is one, or fewer than four models.
    confidence_ : BankConfidence or None
        Of the (first) estimator's scores, where `confidence_level` is given.
    results_ : Results
        Dict of equal-length columns, one entry per model; ``to_frame()`` makes a DataFrame:
        ``name``, ``score``, ``rank``, ``layers``, ``layers_certainty`` (see `skte.bank.LayerInfo`),
        ``layer_scores``, ``n_parameters``, ``width`` (of the finest layer), ``zero_shot`` (Dice of
        the source head over all cases, estimated from the class samples; NaN where its classes
        are not 0, 1, ... of the dataset), ``n_axes``, ``n_windows``, ``n_cached``,
        ``seconds_load``, ``seconds_forward``, ``seconds_tap``, ``seconds_score``, ``window``,
        ``device``, ``untrained``, ``warnings``, ``error``, ``choice`` (place on the short list of
        ``answer_``), ``no_answer`` (why there is none), ``untrained_twin`` (what the first
        estimator gives an untrained network of the same architecture); with a mapping of
        estimators also ``score_<key>`` and ``rank_<key>``; with ``confidence_level`` also
        ``standard_error``, ``interval_low``, ``interval_high``, ``rank_low``, ``rank_high``,
        ``first_share``, ``group`` (and each with ``_<key>``), as in `BankConfidence`.

    See Also
    --------
    skte.evaluation.make_bank_scorer : Tune a pipeline's parameters on a bank.

    Examples
    --------
    >>> from torch import nn
    >>> from skte import CCFV, ModelBankSelector, SegmentationFeatureExtractor
    >>> from skte.datasets import make_phantoms
    >>> cases = make_phantoms(3, size=(16, 16, 16))
    >>> bank = {
    ...     name: nn.Sequential(nn.Conv3d(1, width, 3, padding=1), nn.Conv3d(width, 2, 1))
    ...     for name, width in {"narrow": 4, "wide": 8}.items()
    ... }
    >>> selector = ModelBankSelector(CCFV()).fit(bank, cases)
    >>> sorted(selector.ranking_)
    ['narrow', 'wide']
    """

    _: KW_ONLY
    confidence_level: float | None = None
    n_resamples: int = 1000

    __metadata_request__predict: ClassVar[dict[str, Any]] = {"bank": UNUSED}
    __metadata_request__score: ClassVar[dict[str, Any]] = {"bank": UNUSED, "performance": UNUSED}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BankSelector._parameter_constraints,
        "confidence_level": [Interval(Real, 0, 1, closed="neither"), None],
        "n_resamples": [Interval(Integral, 100, None, closed="left")],
    }

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, bank: BankLike, dataset: DatasetLike) -> Self:
        """Score every model of the bank on the dataset and rank them.

        Parameters
        ----------
        bank : ModelBank, dict of str to nn.Module, list of BankEntry, or path
            The models; a path is that of a manifest or of a bank's folder.
        dataset : list of Subject, SubjectsDataset, list of dict, or path
            The target cases with labels.

        Returns
        -------
        self : ModelBankSelector
            The fitted selector.

        Raises
        ------
        SkteError
            If bank or dataset are unusable (whatever ``error_score`` is), or a model
            fails and ``error_score`` is "raise", or every model fails.
        """
        models = load_bank(bank)
        needed = _NEEDED[self.confidence_level is not None]
        cases = Engine.load_cases(dataset, *needed)
        engine = self._engine()
        weights = None
        if self.confidence_level is not None or (self.reference and len(cases) >= _NEEDED[1][0]):
            weights = without_each(len(cases))
        context = self._init_callback_context(max_subtasks=len(models))
        context.call_on_fit_task_begin(estimator=self)
        # Closed at once, not when memory is collected: it owns processes and threads.
        records = []
        with closing(engine.run(list(models), cases, weights=weights)) as running:
            for record in running:
                step = context.subcontext(task_name=f"model {record.name}")
                step.call_on_fit_task_begin(estimator=self)
                records.append(record)
                step.call_on_fit_task_end(estimator=self)
        check_not_all_failed(records, next(iter(engine.estimators)))
        references = []
        if self.reference:
            references = find_references(
                engine, list(models), records, cases, weights, n_resamples=self.n_resamples,
                confidence_level=self.confidence_level or REFERENCE_LEVEL,
            )  # fmt: skip
        context.call_on_fit_task_end(estimator=self)
        self._judge(engine, models, cases, records, references)
        return self

    def predict(self, bank: BankLike) -> NDArray[np.float64]:
        """Scores (n_models,) of the models of a bank on the fitted dataset, in bank order.

        Parameters
        ----------
        bank
            As for `fit`. Models that were in the fitted bank are not run again. Scores that are
            relative to the bank (`Ensemble`) are relative to this one.
        """
        check_is_fitted(self, "scores_")
        # Models that are new must see the voxels that those of the fitted bank saw, and are
        # scored as those were, whatever the parameters are now.
        engine = self._fitted_engine
        key, estimator = next(iter(engine.estimators.items()))
        known = dict(zip(self.bank_, self.parts_, strict=True))
        entries = list(load_bank(bank))
        new = [entry for entry in entries if entry not in known]
        with closing(engine.run(new, self.dataset_)) as records:
            for entry, record in zip(new, records, strict=True):
                known[entry] = record.parts.get(key)
        return _combined(engine, estimator, [known[entry] for entry in entries])

    def score(self, bank: BankLike, performance: ArrayLike | Mapping[str, float]) -> float:
        """Weighted Kendall correlation, in [-1, 1], of the scores with true performances.

        Parameters
        ----------
        bank
            As for `predict`.
        performance : array-like of shape (n_models,) or mapping of name to float
            What each model reached after fine-tuning (Dice, say), in bank order or by name.
        """
        models = load_bank(bank)
        reached = align_performance(performance, models.names)
        return weighted_kendall_score(reached, self.predict(models))

    def _judge(
        self,
        engine: Engine,
        models: ModelBank,
        cases: CaseList,
        records: Sequence[ModelRecord],
        references: Sequence[Reference],
    ) -> None:
        """Turn records into scores, and say what is known of these."""
        estimators = engine.estimators
        scores = {
            key: _combined(engine, estimator, [record.parts.get(key) for record in records])
            for key, estimator in estimators.items()
        }
        known = known_scores(records, scores)
        confidences = {}
        if self.confidence_level is not None:
            resampling = {
                "n_cases": len(cases),
                "confidence_level": self.confidence_level,
                "n_resamples": self.n_resamples,
                "random_state": engine.random_state,
            }
            confidences = {
                key: confidence_of(key, estimator, records, known[key], resampling)
                for key, estimator in estimators.items()
            }
        first = next(iter(estimators))
        self.parts_ = [record.parts.get(first) for record in records]
        self.confidence_: BankConfidence | None = confidences.get(first)
        self.agreement_: float = _agreement(list(known.values()))
        ranks = rank_scores(known[first])
        self._collect(
            engine, models, cases, records, scores, ranks, references,
            confidences=confidences, agreement=self.agreement_,
        )  # fmt: skip


def _combined(
    engine: Engine,
    estimator: TransferabilityEstimator,
    parts: Sequence[Mapping[str, Any] | None],
) -> NDArray[np.float64]:
    """Scores of a bank; models without a part failed and get ``error_score``."""
    ran = np.array([part is not None for part in parts])
    failed = np.nan if engine.error_score == "raise" else float(engine.error_score)
    scores = np.full(len(parts), failed)
    if ran.any():
        scores[ran] = estimator.combine([part for part in parts if part is not None])
    return scores


def _agreement(scores: Sequence[NDArray[np.float64]]) -> float:
    """Mean weighted Kendall between estimators over the models that all of them scored."""
    known = ~np.isnan(scores).any(axis=0)
    rows = [row[known] for row in scores if len(np.unique(row[known])) > 1]
    pairs = [(a, b) for a in rows for b in rows if a is not b]
    if not pairs or known.sum() < _LEAST_TO_AGREE:
        return float("nan")
    return float(np.mean([weighted_kendall_score(a, b) for a, b in pairs]))
