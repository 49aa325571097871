import numpy as np
import pytest
import torchio as tio

from skte.datasets import check_dataset, load_csv, load_dataset, read_case
from skte.exceptions import DatasetError


@pytest.fixture
def write(tmp_path, nifti, image, label):
    """Write two cases with two channels, and a table of these lines."""
    for case in "ab":
        nifti(tmp_path / "files" / f"{case}_t1.nii.gz", image)
        nifti(tmp_path / "files" / f"{case}_t2.nii.gz", image + 5)
        nifti(tmp_path / "files" / f"{case}_seg.nii.gz", label)

    def save(*lines, name="cases.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_text("\n".join(lines), encoding=encoding)
        return path

    return save


def row(case, sep=",", folder="files/"):
    return sep.join([case, *(f"{folder}{case}_{k}.nii.gz" for k in ("t1", "t2", "seg"))])


@pytest.mark.parametrize(
    ("sep", "name", "encoding"),
    [(",", "a.csv", "utf-8"), (";", "a.CSV", "utf-8-sig"), ("\t", "a.tsv", "utf-8")],
)
def test_channels_in_order(write, image, sep, name, encoding):
    header = sep.join(["id", "image_t1", " image_t2", "label"])
    path = write(header, row("a", sep), "", row("b", sep), name=name, encoding=encoding)
    cases = load_dataset(path)
    assert [c["case_id"] for c in cases] == ["a", "b"]
    assert tio.DATA not in cases[0]["image"]
    np.testing.assert_array_equal(read_case(cases[1]).image, [image, image + 5])
    assert check_dataset(cases) == []


def test_columns_by_name(write, image):
    path = write("who,t1,t2,seg,age", row("a") + ",70", row("b") + ",71")
    with pytest.raises(DatasetError, match=r"(?s)no column 'label'.*no column begins with 'image'"):
        load_csv(path)
    (case, _) = load_csv(path, channels=["t2"], label="seg", case_id="who")
    np.testing.assert_array_equal(read_case(case).image, [image + 5])
    with pytest.raises(DatasetError, match=r"no column 't3'.*columns are who, t1, t2, seg, age"):
        load_csv(path, channels=["t3"], label="seg")


def test_cases_without_id_are_named_by_their_image(write):
    cases = load_csv(write("image,label", "files/a_t1.nii.gz,files/a_seg.nii.gz"))
    assert [c["case_id"] for c in cases] == ["a_t1"]


def test_absolute_paths(write, tmp_path):
    path = write("id,image_1,image_2,label", row("a", folder=f"{tmp_path}/files/"))
    assert read_case(load_csv(path)[0]).image.shape[0] == 2


def test_all_problems_at_once(write):
    path = write("id,image,label", "a,x.nii.gz,", "a,files/a_t1.nii.gz,files/a_seg.nii.gz", ",,")
    with pytest.raises(DatasetError) as error:
        load_csv(path)
    assert "Case 'a': column 'label' is empty" in str(error.value)
    assert "x.nii.gz' does not exist" in str(error.value)
    twice = "a,files/a_t1.nii.gz,files/a_seg.nii.gz"
    with pytest.raises(DatasetError, match="Case id 'a' is used by 2 cases"):
        load_csv(write("id,image,label", twice, twice))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no column 'label'"),
        (["image,label"], "lists no case"),
        (["image,label,label", "a,b,c"], "column 'label' occurs 2 times"),
        (['image,label\n"a', ""], "no valid table|not a valid table"),
        (["image,label", "a" * 300 + ",b"], "does not exist"),
    ],
)
def test_tables_that_are_none(write, lines, message):
    with pytest.raises(DatasetError, match=message):
        load_csv(write(*lines))


def test_files_that_are_no_table(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        load_dataset(tmp_path / "no.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not a valid table"):
        load_dataset(tmp_path / "binary.csv")
