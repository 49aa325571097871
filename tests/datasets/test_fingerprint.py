"""A case's fingerprint: its content, however it is held, and nothing else."""

import hashlib
import os
import shutil
import time

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
import torchio as tio

from skte.datasets import case_fingerprint, make_phantoms, read_case
from skte.exceptions import DatasetError

SHAPE = (6, 5, 4)


@pytest.fixture
def case_files(tmp_path, nifti, image, label):
    paths = [
        nifti(tmp_path / "a_0000.nii", image),
        nifti(tmp_path / "a_0001.nii.gz", image + 1),
        nifti(tmp_path / "label.nii.gz", label),
    ]
    return paths


def subject_of(paths, **fields):
    *images, label = paths
    return tio.Subject(
        image=tio.ScalarImage(images if len(images) > 1 else images[0]),
        label=tio.LabelMap(label),
        **{"case_id": "a", **fields},
    )


def test_loading_does_not_change_it_and_nothing_is_loaded(case_files):
    subject = subject_of(case_files)
    before = case_fingerprint(subject)
    assert not subject["image"]._loaded
    assert not subject["label"]._loaded
    read_case(subject)
    assert case_fingerprint(subject) == before
    subject.load()
    assert case_fingerprint(subject) == before


def test_a_loaded_image_that_was_changed_is_another(case_files):
    subject = subject_of(case_files)
    before = case_fingerprint(subject)
    subject["image"].data[0, 0, 0, 0] += 1
    changed = case_fingerprint(subject)
    moved = subject_of(case_files)
    moved["image"].load()
    moved["image"].affine = np.diag([2.0, 1, 1, 1])
    assert len({before, changed, case_fingerprint(moved)}) == 3


def test_place_and_time_of_files_do_not_count(case_files, tmp_path):
    before = case_fingerprint(subject_of(case_files))
    (tmp_path / "b").mkdir()
    copies = [shutil.copy(path, tmp_path / "b") for path in case_files]
    for path in copies:
        os.utime(path, (1, 1))
    assert case_fingerprint(subject_of(copies)) == before


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_file_changed_between_two_reads_is_another(index, case_files):
    subject = subject_of(case_files)
    before = case_fingerprint(subject)
    path = case_files[index]
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of the same size, and then of the same time as well
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert case_fingerprint(subject) != before


def test_an_old_file_is_read_once_and_again_when_it_changes(case_files, monkeypatch):
    subject = subject_of(case_files)
    clock = time.time() + 10
    monkeypatch.setattr(time, "time", lambda: clock)
    before = case_fingerprint(subject)
    reads = []
    whole = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: (reads.append(args), whole(*args))[1])
    assert case_fingerprint(subject_of(case_files)) == before
    assert reads == []
    status = case_files[0].stat()
    case_files[0].write_bytes(case_files[0].read_bytes()[:-1] + b"\x07")
    os.utime(case_files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert case_fingerprint(subject) != before
    assert len(reads) == 1


def test_known_digests_do_not_grow_without_end(case_files, monkeypatch):
    known = {}
    monkeypatch.setattr("skte._digests._MOST_KNOWN", 2)
    monkeypatch.setattr("skte._digests._KNOWN", known)
    monkeypatch.setattr("skte._digests._CLOCK_TICK", -10.0)
    case_fingerprint(subject_of(case_files))
    assert 0 < len(known) <= 2


def test_order_of_channels_counts(case_files):
    first, second, label = case_files
    assert case_fingerprint(subject_of([second, first, label])) != case_fingerprint(
        subject_of(case_files)
    )


@pytest.mark.parametrize("fields", [{"case_id": "b"}, {"ignore_label": 2}, {"ignore_label": 0}])
def test_id_and_ignored_label_count(fields, case_files):
    digests = {
        case_fingerprint(subject_of(case_files)),
        case_fingerprint(subject_of(case_files, **fields)),
    }
    assert len(digests) == 2


def test_names_of_labels_do_not_count(case_files):
    assert case_fingerprint(subject_of(case_files, label_names={1: "x"})) == case_fingerprint(
        subject_of(case_files)
    )


def phantom(**fields):
    subject = make_phantoms(1, size=(8, 8, 8))[0]
    for name, value in fields.items():
        subject[name] = value
    return subject


def test_images_in_memory():
    before = case_fingerprint(phantom())
    assert case_fingerprint(phantom()) == before
    image, label = phantom()["image"], phantom()["label"]
    others = [
        tio.ScalarImage(tensor=image.data + 1, affine=image.affine),
        tio.ScalarImage(tensor=image.data.double(), affine=image.affine),
        tio.ScalarImage(tensor=image.data.transpose(1, 2).contiguous(), affine=image.affine),
        tio.ScalarImage(tensor=image.data, affine=np.diag([2.0, 1, 1, 1])),
        tio.ScalarImage(tensor=torch.cat([image.data, image.data]), affine=image.affine),
    ]
    digests = [case_fingerprint(phantom(image=other)) for other in others]
    flipped = tio.LabelMap(tensor=label.data.flip(1), affine=label.affine)
    digests.append(case_fingerprint(phantom(label=flipped)))
    assert len({before, *digests}) == 1 + len(digests)


def test_how_a_tensor_lies_in_memory_does_not_count():
    image = phantom()["image"]
    turned = image.data.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    same = tio.ScalarImage(tensor=turned, affine=image.affine)
    assert case_fingerprint(phantom(image=same)) == case_fingerprint(phantom())


def test_two_files_of_one_image_count_both(tmp_path, image, label):
    images = tmp_path / "a.mhd"
    sitk.WriteImage(sitk.GetImageFromArray(image.T), str(images))
    nib.Nifti1Image(label, np.diag([-1, -1, 1, 1])).to_filename(tmp_path / "label.nii")
    subject = subject_of([images, tmp_path / "label.nii"])
    before = case_fingerprint(subject)
    assert case_fingerprint(subject) == before
    assert not subject["image"]._loaded
    sitk.WriteImage(sitk.GetImageFromArray(image.T + 1), str(images))
    assert case_fingerprint(subject) != before


def test_what_a_reader_of_ones_own_gives_counts(case_files):
    def reader(offset):
        return lambda path: (torch.full((1, *SHAPE), float(offset)), np.eye(4))

    digests = []
    for offset in (1, 1, 2):
        subject = subject_of(case_files)
        subject["image"] = tio.ScalarImage(case_files[0], reader=reader(offset))
        digests.append(case_fingerprint(subject))
        assert not subject["image"]._loaded
    assert digests[0] == digests[1] != digests[2]


def test_what_cannot_be_read_is_named(case_files):
    with pytest.raises(DatasetError, match="takes a torchio Subject, got str"):
        case_fingerprint("a")
    subject = subject_of(case_files)
    case_files[1].unlink()
    with pytest.raises(DatasetError, match=r"Case 'a' cannot be read .*does not exist"):
        case_fingerprint(subject)
    with pytest.raises(DatasetError, match="label"):
        case_fingerprint(tio.Subject(image=phantom()["image"]))
