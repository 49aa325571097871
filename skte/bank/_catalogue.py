"""Published collections of models, from one file of facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skte.bank._documents import parse_file

__all__ = ["Collection", "catalogue"]

_FILE = Path(__file__).with_name("catalogue.yaml")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What is known of a published collection of models.

    Parameters
    ----------
    name : str
        Its name.
    where : str
        The address of its page.
    models : str
        Architectures, and what they were trained on.
    modality : str
        Kind of images.
    license : str
        Of the weights.
    read : str
        How skte reads them.
    checked : str
        What was tried with skte, and what was not.
    spacing : str, default=""
        Voxel size that the models expect, where all have one.
    """

    name: str
    where: str
    models: str
    modality: str
    license: str
    read: str
    checked: str
    spacing: str = ""


def catalogue() -> list[Collection]:
    """List published collections of models; nothing is downloaded.

    Returns
    -------
    list of Collection
        Facts of their own pages; `Collection.checked` says what was tried with skte.

    Raises
    ------
    BankError
        Without PyYAML (``pip install skte[cli]``).

    See Also
    --------
    download_snapshot : Fetches a repository of the Hugging Face Hub.

    Examples
    --------
    >>> from skte.bank import catalogue
    >>> [one.name for one in catalogue()][:2]
    ['OpenMind', 'SuPreM']
    """
    return [Collection(**row) for row in parse_file(_FILE, "Catalogue")]
