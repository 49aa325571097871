"""One bank on several datasets: ranks of the models, and the answer for each dataset."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from skte._table import NONE, format_html_table, format_table, rank_cell
from skte.bank import BankLike, load_bank
from skte.datasets import DatasetLike
from skte.exceptions import SkteError
from skte.selection._answer import Answer
from skte.selection._halving import HalvingModelBankSelector
from skte.selection._selector import ModelBankSelector

Selector = ModelBankSelector | HalvingModelBankSelector


class DatasetRanks:
    """Ranks of models on datasets. Its repr is the answer for each dataset around a table.

    Parameters
    ----------
    selectors : mapping of str to ModelBankSelector or HalvingModelBankSelector
        Fitted on one bank, by the name of the dataset.
    failed : mapping of str to str, optional
        Datasets that no model could be ranked on, and why.

    Attributes
    ----------
    names : tuple of str
        Models by mean rank, best first; those that failed on a dataset last.
    datasets : tuple of str
        Of `selectors`, then of `failed`.
    ranks : ndarray of shape (n_models, n_datasets)
        By the first estimator, 1 for the best; NaN where a model failed.
    mean_ranks : ndarray of shape (n_models,)
        Over the datasets that are not `failed`; NaN where the model failed on one of them.

    See Also
    --------
    rank_datasets : Makes it.
    """

    def __init__(
        self, selectors: Mapping[str, Selector], failed: Mapping[str, str] | None = None
    ) -> None:
        self.selectors, self.failed = dict(selectors), dict(failed or {})
        self.datasets = (*self.selectors, *self.failed)
        fitted = list(self.selectors.values())
        if not fitted:
            raise ValueError(f"No dataset could be ranked: {self.failed or 'none was given'}.")
        ranked = np.array([np.where(np.isnan(s.scores_), np.nan, s.ranks_) for s in fitted]).T
        means = ranked.mean(axis=1)
        order = np.argsort(means, kind="stable")
        self.names = tuple(fitted[0].names_[i] for i in order)
        self.ranks: NDArray[np.float64] = np.full((len(order), len(self.datasets)), np.nan)
        self.ranks[:, : len(fitted)] = ranked[order]
        self.mean_ranks: NDArray[np.float64] = means[order]

    @property
    def answer(self) -> Answer:
        """What to fine-tune for each dataset; sentences that do not name one hold for all."""
        choices = {name: selector.answer_.choice for name, selector in self.selectors.items()}
        for name, reason in self.failed.items():
            first = reason.replace("\n- ", " ", 1).partition("\n")[0]
            choices[name] = (f"No answer: {first[:1].lower()}{first[1:]}",)
        return Answer(
            choice=tuple(f"{name}: {line}" for name, lines in choices.items() for line in lines),
            doubts=self._said(lambda answer: answer.doubts),
            certainty=self._said(lambda answer: answer.below),
        )

    def _said(self, part: Callable[[Answer], tuple[str, ...]]) -> tuple[str, ...]:
        """Sentences with the dataset they are about; those about all of them stand once."""
        said = {name: part(selector.answer_) for name, selector in self.selectors.items()}
        shared = set.intersection(*map(set, said.values())) if len(said) > 1 else set()
        own = [f"{name}: {s}" for name, lines in said.items() for s in lines if s not in shared]
        return (*own, *(s for s in next(iter(said.values())) if s in shared))

    @property
    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        return ["mean rank", "model", *self.datasets]

    def rows(self) -> list[tuple[Any, ...]]:
        """Cells of the table; a dash stands where a model failed."""
        ranking = next(iter(self.selectors.values())).ranking_
        return [
            (NONE if np.isnan(mean) else float(mean), ranking.marked(name), *map(rank_cell, ranks))
            for name, mean, ranks in zip(self.names, self.mean_ranks, self.ranks, strict=True)
        ]

    def to_frame(self) -> Any:
        """Convert to a pandas DataFrame: a rank per dataset, and the mean rank, best first."""
        import pandas as pd

        frame = pd.DataFrame(self.ranks, index=list(self.names), columns=list(self.datasets))
        return frame.assign(**{"mean rank": self.mean_ranks})

    def __repr__(self) -> str:
        return self.answer.around(format_table(self.header, self.rows()))

    def _repr_html_(self) -> str:
        return self.answer.around_html(format_html_table(self.header, self.rows()))


def rank_datasets(
    selector: Selector, bank: BankLike, datasets: Mapping[str, DatasetLike]
) -> DatasetRanks:
    """Rank a bank on several datasets.

    Parameters
    ----------
    selector : ModelBankSelector or HalvingModelBankSelector
        The settings. It is cloned for each dataset, and not fitted itself.
    bank
        As for the selector's ``fit``.
    datasets : mapping of str to list of Subject, SubjectsDataset, list of dict, or path
        The target cases of each dataset, by its name.

    Returns
    -------
    DatasetRanks
        Ranks by the first estimator, with all that was found in ``selectors``.

    Raises
    ------
    SkteError
        As of the selector's ``fit``. Where its ``error_score`` is a number, a dataset that it is
        raised for is listed in ``failed``, unless that is true of all datasets.

    Examples
    --------
    >>> from skte import LogME, ModelBankSelector
    >>> from skte.datasets import make_phantoms
    >>> from skte.demo import small_unet
    >>> from skte.selection import rank_datasets
    >>> bank = {name: small_unet(widths=(4, 8)) for name in ("a", "b")}
    >>> cases = {seed: make_phantoms(3, size=(16, 16, 16), random_state=seed) for seed in (0, 1)}
    >>> selector = ModelBankSelector(LogME(), reference=False)
    >>> found = rank_datasets(selector, bank, {"liver": cases[0], "spleen": cases[1]})
    >>> found.header, found.ranks.shape
    (['mean rank', 'model', 'liver', 'spleen'], (2, 2))
    """
    models = load_bank(bank)
    fitted: dict[str, Selector] = {}
    failed: dict[str, str] = {}
    for name, dataset in datasets.items():
        try:
            with _warnings_of(name):
                fitted[name] = clone(selector).fit(models, dataset)
        except SkteError as error:
            error.add_note(f"This is of the dataset {name!r}.")
            if selector.error_score == "raise" or len(failed) == len(datasets) - 1:
                raise
            failed[name] = str(error)
    return DatasetRanks(fitted, failed)


@contextmanager
def _warnings_of(dataset: str) -> Iterator[None]:
    """Let warnings name the dataset that they are about."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        for one in caught:
            text = f"Dataset {dataset!r}: {one.message}"
            warnings.warn_explicit(text, one.category, one.filename, one.lineno)
