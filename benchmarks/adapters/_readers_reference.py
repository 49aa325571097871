"""Read odd files with nnU-Net's own readers and store what they give.

Runs in the environment of `_reference.py`, with tifffile and Pillow beside it:

    nnunet/bin/python -m benchmarks.adapters._readers_reference \
        tests/datasets/data/nnunet_readers.npz
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tests.datasets.odd_files import FILES, write

_MODULES = {
    "NaturalImage2DIO": "natural_image_reader_writer",
    "NibabelIO": "nibabel_reader_writer",
    "NibabelIOWithReorient": "nibabel_reader_writer",
    "SimpleITKIO": "simpleitk_reader_writer",
    "Tiff3DIO": "tif_reader_writer",
}


def main(path: str) -> None:
    """Read every file as image and as label."""
    stored: dict[str, Any] = {}
    spacings = {}
    for name, (kind, _) in FILES.items():
        reader = getattr(import_module(f"nnunetv2.imageio.{_MODULES[kind]}"), kind)()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            image, label = write(Path(folder), name)
            stored[f"{name}/image"], properties = reader.read_images((str(image),))
            stored[f"{name}/label"], _ = reader.read_seg(str(label))
        spacings[name] = [float(edge) for edge in properties["spacing"]]
    notes = {"nnunetv2": "2.8.1", "SimpleITK": version("SimpleITK"), "spacings": spacings}
    np.savez_compressed(path, notes=json.dumps(notes), **stored)
    print(f"{len(spacings)} files")


if __name__ == "__main__":
    main(sys.argv[1])
