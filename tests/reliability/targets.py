"""Doors of skte with something random at them. Each says what came of it, or raises.

`prepare(folder)` writes what is sound, once; `attempt(rng, folder, sound)` changes it and tries
it. It returns "result" where what came out is right, or "named error"; whatever else it
raises is a failure of skte's.
"""

from typing import NamedTuple

from tests.reliability.arrays import attempt_arrays, prepare_arrays
from tests.reliability.banks import (
    attempt_checkpoint,
    attempt_manifest,
    attempt_plans,
    prepare_checkpoint,
    prepare_manifest,
    prepare_plans,
)
from tests.reliability.cache import attempt_cache, prepare_cache
from tests.reliability.data import (
    attempt_description,
    attempt_nifti,
    prepare_msd,
    prepare_nifti,
    prepare_nnunet_raw,
)
from tests.reliability.shell import attempt_shell, prepare_shell


class Target(NamedTuple):
    """One door."""

    prepare: object
    attempt: object
    what: str


TARGETS = {
    "manifest": Target(prepare_manifest, attempt_manifest, "manifests of banks, loaded"),
    "msd": Target(prepare_msd, attempt_description, "`dataset.json` of the Decathlon"),
    "nnunet_raw": Target(prepare_nnunet_raw, attempt_description, "`dataset.json` of nnU-Net"),
    "plans": Target(prepare_plans, attempt_plans, "`plans.json` of nnU-Net's models, built"),
    "cache": Target(prepare_cache, attempt_cache, "files of a cache"),
    "checkpoint": Target(prepare_checkpoint, attempt_checkpoint, "checkpoints, some with code"),
    "nifti": Target(prepare_nifti, attempt_nifti, "NIfTI headers and bytes"),
    "arrays": Target(prepare_arrays, attempt_arrays, "arrays at the estimators"),
    "shell": Target(prepare_shell, attempt_shell, "command lines, run"),
}
