"""What the probe predicts, over slices."""

from __future__ import annotations

import numpy as np
import pytest

from skte import BankEntry, CrossCaseProbe, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms, read_case
from skte.demo import small_unet
from skte.extraction import sampled_voxels
from skte.report import write_report
from skte.report._sampled_voxels_display import ProbeDisplay


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(3, size=(16, 16, 16))


@pytest.fixture(scope="module")
def fitted(cases):
    entry = BankEntry("model", small_unet)
    extractor = SegmentationFeatureExtractor(entry, layers="all", taper=False)
    return CrossCaseProbe().fit(extractor.fit_transform(cases)), extractor


def names_of(display):
    return {text for ax in display.ax_ for text in ax.get_legend_handles_labels()[1]}


def test_right_predictions_are_dots_and_wrong_ones_crosses(cases):
    case = read_case(cases[0])
    sample = sampled_voxels(SegmentationFeatureExtractor(), case)
    right = names_of(ProbeDisplay(case, sample, sample.labels).plot())
    assert right
    assert all(name.endswith(": right") for name in right)
    wrong = names_of(ProbeDisplay(case, sample, (sample.labels + 1) % 2).plot())
    assert all(name.endswith(": wrong") for name in wrong - right)
    assert wrong - right


def test_each_case_gets_the_predictions_of_its_own_voxels(cases, fitted):
    probe, extractor = fitted
    displays = ProbeDisplay.from_probe(probe, extractor, cases)
    assert [d.case.case_id for d in displays] == list(probe.case_names_)
    joined = np.concatenate([d.predicted for d in displays])
    np.testing.assert_array_equal(joined, probe.classes_[probe.predictions_.argmax(axis=1)])
    labels = np.concatenate([d.sample.labels for d in displays])
    classes = np.unique(labels)
    recall = np.mean([np.mean(joined[labels == k] == k) for k in classes])
    assert recall > 1 / len(classes) + 0.1  # rows in another order would be at chance


def test_other_voxels_are_refused(cases, fitted):
    probe, extractor = fitted
    with pytest.raises(ValueError, match=r"was fitted on \d+ voxels, but the cases have"):
        ProbeDisplay.from_probe(probe, extractor, cases[:2])
    case = read_case(cases[0])
    sample = sampled_voxels(extractor, case)
    with pytest.raises(ValueError, match="Extract with taper=False"):
        ProbeDisplay(case, sample, sample.labels[1:])


@pytest.mark.slow
def test_the_report_shows_the_first_and_the_last_model(cases, tmp_path):
    small = {"widths": (4, 8)}
    bank = [BankEntry(name, small_unet, arguments=small) for name in ("a", "b", "c")]
    selector = ModelBankSelector(reference=False).fit(bank, cases)
    page = write_report(selector, tmp_path / "report.html").read_text("utf-8")
    for name in (selector.ranking_[0], selector.ranking_[-1]):
        assert f"predictions of the probe on features of {name}" in page
    assert f"predictions of the probe on features of {selector.ranking_[1]}" not in page
