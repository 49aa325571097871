"""Files stay within the folder that was given, and the folders that were allowed."""

import os

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torchio as tio

from skte import memory_limit
from skte.cli import main
from skte.datasets import check_dataset, inspect_dataset, load_dataset, read_case
from skte.exceptions import DatasetError


@pytest.fixture
def save_folder(tmp_path, nifti, image, label):
    """Write two cases of plain folders below `tmp_path / name`."""

    def save(name="data"):
        for case in ("a", "b"):
            nifti(tmp_path / name / "images" / f"{case}.nii.gz", image)
            nifti(tmp_path / name / "labels" / f"{case}.nii.gz", label)
        return tmp_path / name

    return save


def replace_by_link(path, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    path.symlink_to(target)


def test_a_link_out_is_refused_until_it_is_allowed(save_folder, tmp_path, capsys):
    folder, share = save_folder(), tmp_path / "share"
    replace_by_link(folder / "images" / "a.nii.gz", share / "x.nii.gz")
    with pytest.raises(DatasetError, match=rf"Case 'a': .* --allow-root {share}") as error:
        load_dataset(folder)
    assert [problem.case_id for problem in error.value.problems] == ["a"]
    assert inspect_dataset(load_dataset(folder, extra_roots=[share])).problems == ()
    assert main(["inspect", str(folder)]) == 2
    assert main(["inspect", str(folder), "--allow-root", str(share)]) == 0


def test_a_broken_link_out_is_called_missing(save_folder, tmp_path):
    folder, share = save_folder(), tmp_path / "share"
    cases = load_dataset(folder)
    replace_by_link(folder / "images" / "a.nii.gz", share / "x.nii.gz")
    (share / "x.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"x\.nii\.gz', which does not exist") as error:
        load_dataset(folder)
    (problem,) = check_dataset(cases)
    for text in (str(error.value), str(problem)):
        assert "which does not exist" in text
        assert "--allow-root" not in text


def test_links_inside_and_a_root_that_is_a_link_are_fine(save_folder, tmp_path, monkeypatch):
    folder = save_folder()
    replace_by_link(folder / "images" / "a.nii.gz", folder / ".git" / "annex" / "objects" / "key")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for path in (folder, tmp_path / "link", "data", "./link/"):
        assert len(load_dataset(path)) == 2


def test_a_link_that_is_changed_after_loading_is_not_followed(save_folder, tmp_path):
    folder = save_folder()
    cases = load_dataset(folder)
    replace_by_link(folder / "labels" / "b.nii.gz", tmp_path / "elsewhere" / "x.nii.gz")
    (problem,) = check_dataset(cases)
    assert "Case 'b'" in problem
    assert "outside the folder" in problem
    with pytest.raises(DatasetError, match=r"Case 'b'.*outside the folder"):
        read_case(cases[1])


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_names_its_case(save_folder, make):
    folder = save_folder()
    for kind in ("images", "labels"):
        (folder / kind / "a.nii.gz").unlink()
        make(folder / kind / "a.nii.gz")
    with pytest.raises(DatasetError) as error:
        load_dataset(folder)
    assert {problem.case_id for problem in error.value.problems} == {"a"}


def test_another_current_folder_changes_nothing(save_folder, tmp_path, monkeypatch):
    save_folder()
    monkeypatch.chdir(tmp_path)
    item = {"image": "data/images/a.nii.gz", "label": "data/labels/a.nii.gz"}
    cases = [*load_dataset("data"), *load_dataset([item])]
    monkeypatch.chdir("/")
    assert [read_case(case).label.max().item() for case in cases] == [2, 2, 2]


@pytest.mark.slow
def test_large_honest_cases_load_where_a_limit_lets_them(tmp_path, nifti):
    """Zeros but for a corner: the label is bounded by its image, the image by the limit."""
    rng = np.random.default_rng(0)
    values = np.zeros((400, 400, 200), dtype=np.int16)
    values[:100] = rng.integers(0, 200, (100, 400, 200))
    label = np.zeros(values.shape, dtype=np.uint8)
    label[:9, :9] = 1
    nifti(tmp_path / "images" / "a.nii.gz", values)
    nifti(tmp_path / "labels" / "a.nii.gz", label)
    (case,) = load_dataset(tmp_path)
    assert check_dataset([case]) == []
    with memory_limit("10MB"):
        (problem,) = check_dataset([case])
        assert "would take" in problem
        assert "--max-memory" in problem
    with memory_limit("8GB"):
        assert read_case(case).label.sum() == 81 * 200


ENDINGS = [
    ".nii", ".nii.gz", ".mgz", ".mha", ".mhd", ".nrrd", ".nhdr", ".gipl", ".png", ".bmp",
    ".tif", ".jpg",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_other_tools_write_is_read_as_torchio_reads_it(tmp_path, ending):
    values = np.random.default_rng(0).integers(0, 255, (9, 8, 5)).astype(np.uint8)
    if ending in (".png", ".bmp", ".tif", ".jpg"):
        values = values[..., :1]
    written = tmp_path / f"a{ending}"
    if ending == ".mgz":
        nib.freesurfer.MGHImage(values, np.eye(4)).to_filename(written)
    elif values.shape[2] == 1:
        sitk.WriteImage(sitk.GetImageFromArray(values[..., 0].T), str(written))
    else:
        compressed = ending in (".mha", ".mhd", ".nrrd", ".nhdr")
        sitk.WriteImage(sitk.GetImageFromArray(values.T), str(written), compressed)
    image = tio.ScalarImage(tmp_path / f"a{ending}")
    label = (values > 100).astype(np.uint8)
    label_map = tio.LabelMap(tensor=label[None], affine=tio.ScalarImage(image.path).affine)
    (case,) = load_dataset([tio.Subject(image=image, label=label_map, case_id="a")])
    assert check_dataset([case]) == []
    found = read_case(case).image  # a grey BMP has a palette, of which torchio makes three channels
    assert len(found) == 1
    np.testing.assert_array_equal(found, image.data.float()[:1])
