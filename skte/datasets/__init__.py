"""Datasets on disk or in memory as checked torchio subjects, and synthetic phantoms."""

from skte.datasets._bids import load_bids
from skte.datasets._case import Case, CaseList, case_fingerprint, read_case
from skte.datasets._case import case_stamp as case_stamp
from skte.datasets._case import check_unchanged as check_unchanged
from skte.datasets._csv import load_csv
from skte.datasets._dataset_json import load_msd, load_nnunet_raw
from skte.datasets._folder import load_dicom, load_folder
from skte.datasets._inspect import CaseSummary, DatasetReport, check_dataset, inspect_dataset
from skte.datasets._layouts import DatasetLike, Layout, layout_names, load_dataset
from skte.datasets._phantoms import PHANTOM_TASKS, make_phantoms
from skte.datasets._problem import Problem, Skipped

__all__ = [
    "Case",
    "CaseList",
    "CaseSummary",
    "DatasetLike",
    "DatasetReport",
    "Layout",
    "PHANTOM_TASKS",
    "Problem",
    "Skipped",
    "case_fingerprint",
    "check_dataset",
    "inspect_dataset",
    "layout_names",
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
