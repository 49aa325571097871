"""Every layout of the registry has an example, a named error, a page and a loader."""

import importlib.metadata
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from skte import datasets
from skte.datasets import Layout, layout_names, load_dataset, load_folder, read_case
from skte.datasets._layouts import LAYOUTS
from skte.exceptions import DatasetError, SkteWarning

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "datasets.md"
LOADERS = {"nnunet": "load_nnunet_raw"}  # others are called as their layout


def _listed(folder, nifti, image, label, **more):
    names = ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    for name, array in zip(names, (image, label), strict=True):
        nifti(folder / name, array)
    content = {"labels": {"0": "background", "1": "b"}, **more}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def _msd(folder, nifti, image, label):
    pair = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    return _listed(folder, nifti, image, label, training=[pair])


def _nnunet(folder, nifti, image, label):
    _listed(folder, nifti, image, label, channel_names={"0": "MRI"})
    (folder / "imagesTr" / "a.nii.gz").rename(folder / "imagesTr" / "a_0000.nii.gz")
    return folder


def _bids(folder, nifti, image, label):
    nifti(folder / "sub-a" / "anat" / "sub-a_T1w.nii.gz", image)
    nifti(folder / "sub-a" / "anat" / "sub-a_dseg.nii.gz", label)
    return folder


def _dicom(folder, nifti, image, label):
    (folder / "a" / "CT").mkdir(parents=True)
    volume = sitk.GetImageFromArray((image.T * 100 + 900).astype(np.uint16))
    sitk.WriteImage(volume, folder / "a" / "CT" / "1.dcm")
    labels = sitk.GetImageFromArray(label.T)
    labels.CopyInformation(volume)
    sitk.WriteImage(labels, folder / "a" / "label.nii.gz")
    return folder


def _folder(folder, nifti, image, label):
    nifti(folder / "images" / "a.nii.gz", image)
    nifti(folder / "labels" / "a.nii.gz", label)
    return folder


def _csv(folder, nifti, image, label):
    _folder(folder, nifti, image, label)
    (folder / "cases.csv").write_text("image,label\nimages/a.nii.gz,labels/a.nii.gz\n")
    return folder / "cases.csv"


#: A new layout needs a line here: a function that writes an example of one case and returns what
#: is loaded, a file in it that is removed, and what is then reported.
EXAMPLES = {
    "msd": (_msd, "imagesTr/a.nii.gz", r"training\[0\]: image: .*does not exist"),
    "nnunet": (_nnunet, "imagesTr/a_0000.nii.gz", "'imagesTr' holds no file"),
    "bids": (_bids, "sub-a/anat/sub-a_T1w.nii.gz", "Case 'sub-a': there is no image"),
    "dicom": (_dicom, "a/label.nii.gz", "Case 'a': it has no label map"),
    "folder": (_folder, "images/a.nii.gz", "folder 'images' holds no image file"),
    "csv": (_csv, "images/a.nii.gz", "Case 'a': .*does not exist"),
}


@pytest.fixture(params=layout_names())
def layout(request):
    return request.param


@pytest.fixture
def example(layout, tmp_path, nifti, image, label):
    if layout not in EXAMPLES:
        pytest.fail(f"add an example of {layout!r} to EXAMPLES of {__file__}", pytrace=False)
    (tmp_path / "data").mkdir()
    return EXAMPLES[layout][0](tmp_path / "data", nifti, image, label)


def test_an_example_is_found_and_loads(layout, example, label):
    for cases in (load_dataset(example), load_dataset(example, layout=layout)):
        (case,) = cases
        assert case["case_id"] == ("sub-a" if layout == "bids" else "a")
        np.testing.assert_array_equal(read_case(case).label, label)


def test_a_broken_example_is_a_named_error(layout, example):
    _, missed, message = EXAMPLES[layout]
    folder = example.parent if example.is_file() else example
    (folder / missed).unlink()
    with pytest.raises(DatasetError, match=message) as error:
        load_dataset(example, layout=layout)
    assert str(folder) in str(error.value)


def test_only_its_own_layout_finds_an_example(layout, example):
    if layout in ("msd", "nnunet"):
        for name in ("images", "labels"):  # a description counts, not what lies beside it
            (example / name).mkdir()
    assert len(load_dataset(example)) == 1


@pytest.mark.parametrize("known", LAYOUTS, ids=lambda known: known.name)
def test_nothing_is_of_no_layout(known, tmp_path):
    assert known.fallback or known.matches(tmp_path / "nothing", ()) is False


def test_loader_is_exported(layout):
    loader = LOADERS.get(layout, f"load_{layout}")
    assert loader in datasets.__all__, f"export {loader} from skte.datasets"


def test_page_has_a_section(layout):
    if not re.search(rf"^### .*\(`{layout}`\)$", PAGE.read_text("utf-8"), re.M):
        pytest.fail(f"add a section '### Title (`{layout}`)' to {PAGE}", pytrace=False)


def test_table_of_the_page_is_the_registry(tmp_path):
    (tmp_path / "nothing").touch()
    with pytest.raises(DatasetError, match="Known layouts are") as error:
        load_dataset(tmp_path)
    known = re.findall(r"^- (\w+): (.*)$", str(error.value), re.M)
    assert tuple(name for name, _ in known) == layout_names(), (
        "LAYOUTS of skte/_registry.py must name the layouts, in this order"
    )
    section = PAGE.read_text("utf-8").partition("## Layouts")[2].partition("###")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.M)
    assert [(name, text.replace("`", "")) for name, text in rows[1:]] == [
        (name, text.replace("'", "")) for name, text in known
    ], f"the table of {PAGE} must hold 'name | looks_like' of each layout, in this order"


# Layouts of other packages.

OTHER = Layout(
    "scans",
    "scans/ with masks/",
    matches=lambda path, extra_roots: (path / "scans").is_dir(),
    load=lambda path, extra_roots: load_folder(path, images="scans", labels="masks"),
)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Writer of an installed package with one entry point."""

    def write(module, value):
        site = tmp_path / "site"
        info = site / "other-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[skte.layouts]\nscans = {value}\n")
        (site / "other_layouts.py").write_text(module)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, "other_layouts", raising=False)
        importlib.invalidate_caches()

    yield write
    sys.modules.pop("other_layouts", None)


@pytest.fixture
def scans(tmp_path, nifti, image, label):
    folder = _folder(tmp_path / "data", nifti, image, label)
    (folder / "images").rename(folder / "scans")
    (folder / "labels").rename(folder / "masks")
    return folder


def test_layout_of_another_package(install, scans):
    install(f"from {__name__} import OTHER\n", "other_layouts:OTHER")
    assert layout_names()[-1] == "scans"
    assert "other_layouts" not in sys.modules
    for layout in (None, "scans"):
        assert [c["case_id"] for c in load_dataset(scans, layout=layout)] == ["a"]
    with pytest.raises(DatasetError, match="no names in the layout 'scans'"):
        load_dataset(scans, layout="scans", channels=["MRI"])
    shutil.rmtree(scans / "scans")
    with pytest.raises(DatasetError, match="scans: scans/ with masks/"):
        load_dataset(scans)


@pytest.mark.parametrize(
    ("module", "value", "message"),
    [
        ("1 / 0\n", "other_layouts:OTHER", "division by zero"),
        ("", "other_layouts:OTHER", "has no attribute 'OTHER'"),
        ("OTHER = 3\n", "other_layouts:OTHER", "is not a Layout of this name"),
        ("", "not_there:OTHER", "No module named 'not_there'"),
    ],
)
def test_a_broken_package_is_a_warning(install, module, value, message, save_msd):
    install(module, value)
    folder = save_msd()
    with pytest.warns(
        SkteWarning, match=rf"'scans' .* \({value}\) is left out: .*{message}"
    ) as got:
        assert len(load_dataset(folder)) == 2
    assert len(got) == 1
    assert len(load_dataset(folder, layout="msd")) == 2  # without a warning: it is not imported
    with (
        pytest.warns(SkteWarning, match="'scans'"),
        pytest.raises(DatasetError, match="'scans' cannot be used"),
    ):
        load_dataset(folder, layout="scans")


def test_a_layout_that_cannot_look_is_a_warning(install, save_msd):
    install(
        "from skte.datasets import Layout\n"
        "OTHER = Layout('scans', '', lambda path, extra_roots: 1 / 0, list)\n",
        "other_layouts:OTHER",
    )
    folder = save_msd()
    with pytest.warns(SkteWarning, match="'scans' cannot be used .division by zero"):
        assert len(load_dataset(folder)) == 2
