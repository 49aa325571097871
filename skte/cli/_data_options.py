"""Options that say which dataset is meant, and how it is read."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from skte.datasets import layout_names, load_dataset
from skte.exceptions import SkteError

__all__ = ["add_data_options", "load_data"]


def add_data_options(parser: Any) -> None:
    """Add ``--labels``, ``--channels`` and ``--layout`` to a parser or group."""
    parser.add_argument(
        "--labels",
        metavar="FILE.json",
        help='choose and merge classes by name: a file, or its text: {"heart": ["LV", "RV"]}',
    )
    parser.add_argument(
        "--channels",
        nargs="+",
        metavar="NAME",
        help="channels to read: nnU-Net's names, BIDS suffixes, columns, DICOM series folders",
    )
    parser.add_argument(
        "--layout",
        choices=layout_names(),
        help="how the data is laid out (default: detected)",
    )


def load_data(path: str, args: argparse.Namespace) -> list[Any]:
    """Load the dataset that the options describe."""
    labels = None if args.labels is None else _read_labels(args.labels)
    return load_dataset(
        path,
        labels=labels,
        channels=args.channels,
        layout=args.layout,
        extra_roots=args.allow_root,
    )


def _read_labels(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise SkteError(f"--labels {text}: the file cannot be read ({error}).") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SkteError(f"--labels is not valid JSON ({error}): fix it.") from error
