"""Writing phantoms to disk as a dataset that the shell can read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skte._files import write_text_atomically

__all__ = ["write_msd"]


def write_msd(folder: Path, subjects: Sequence[Any], name: str) -> Path:
    """Write cases in the layout of the Medical Segmentation Decathlon.

    Parameters
    ----------
    folder : Path
        Where they go; made if need be.
    subjects : sequence of Subject
        As `skte.datasets.make_phantoms` returns them.
    name : str
        Name of the dataset.

    Returns
    -------
    Path
        `folder`, which `skte.datasets.load_msd` reads.
    """
    training = []
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        file = f"{subject['case_id']}.nii.gz"
        subject["image"].save(folder / "imagesTr" / file)
        subject["label"].save(folder / "labelsTr" / file)
        training.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
    description = {
        "name": name,
        "modality": {"0": "synthetic"},
        "labels": {str(k): v for k, v in subjects[0]["label_names"].items()},
        "numTraining": len(training),
        "training": training,
        "numTest": 0,
        "test": [],
    }
    write_text_atomically(folder / "dataset.json", json.dumps(description, indent=2))
    return folder
