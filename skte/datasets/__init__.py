"""Datasets on disk or in memory as checked torchio subjects, and synthetic phantoms."""

from skte.datasets._bids import load_bids
from skte.datasets._case import Case, read_case
from skte.datasets._case_list import CaseList
from skte.datasets._check_dataset import check_dataset
from skte.datasets._csv import load_csv
from skte.datasets._dicom import load_dicom
from skte.datasets._fetch import MSD_TASKS, fetch_msd
from skte.datasets._fingerprint import case_fingerprint
from skte.datasets._folder import load_folder
from skte.datasets._home import cache_home
from skte.datasets._load import DatasetLike, load_dataset
from skte.datasets._msd import load_msd
from skte.datasets._nnunet import load_nnunet_raw
from skte.datasets._phantoms import PHANTOM_TASKS, make_phantoms
from skte.datasets._problem import Problem
from skte.datasets._report import CaseSummary, DatasetReport, inspect_dataset
from skte.datasets._stamp import case_stamp, check_unchanged

__all__ = [
    "Case",
    "CaseList",
    "CaseSummary",
    "DatasetLike",
    "DatasetReport",
    "MSD_TASKS",
    "PHANTOM_TASKS",
    "Problem",
    "cache_home",
    "case_fingerprint",
    "case_stamp",
    "check_dataset",
    "check_unchanged",
    "fetch_msd",
    "inspect_dataset",
    "load_bids",
    "load_csv",
    "load_dataset",
    "load_dicom",
    "load_folder",
    "load_msd",
    "load_nnunet_raw",
    "make_phantoms",
    "read_case",
]
