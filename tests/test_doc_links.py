"""Diagrams of estimators link to places that the documentation has."""

import runpy
import sys
import warnings
from importlib import metadata
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator

from skte import (
    CCFV,
    ModelBankSelector,
    SegmentationFeatureExtractor,
    estimators,
    extraction,
    selection,
)
from skte.estimators import TransferabilityEstimator

CONF = Path(__file__).parents[1] / "docs" / "conf.py"


@pytest.fixture
def conf(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    return runpy.run_path(str(CONF))


def exported_estimators():
    for room in (estimators, extraction, selection):
        for name in room.__all__:
            value = getattr(room, name)
            if isinstance(value, type) and issubclass(value, BaseEstimator):
                yield value


def test_every_estimator_has_a_place(conf, monkeypatch):
    monkeypatch.setenv("SKTE_DOCS_URL", "https://docs.test/skte/")
    found = list(exported_estimators())
    assert {CCFV, ModelBankSelector, selection.HalvingModelBankSelector} <= set(found)
    for cls in found:
        page, anchor = cls._get_doc_link(cls.__new__(cls)).split("#")
        room = anchor.split(".")[1]
        assert page == f"https://docs.test/skte/api/{room}.html"
        assert room in conf["ROOMS"]
        assert f".. autoclass:: {anchor}\n" in conf["api_page"](room)


@pytest.mark.parametrize(
    "estimator",
    [CCFV(), ModelBankSelector(CCFV()), SegmentationFeatureExtractor()],
    ids=lambda estimator: type(estimator).__name__,
)
def test_diagrams_link_there(estimator, monkeypatch):
    monkeypatch.setenv("SKTE_DOCS_URL", "https://docs.test")
    link = f'href="{estimator._get_doc_link()}"'
    assert "https://docs.test/api/" in link
    assert link in estimator._repr_html_()
    assert 'href="https://scikit-learn' not in estimator._repr_html_()


@pytest.mark.parametrize(
    ("urls", "link"),
    [
        (["Source, https://a.test", "Documentation, https://b.test"], "https://b.test/api/"),
        (["Source, https://a.test"], ""),
        (None, ""),
    ],
)
def test_the_package_says_where_its_documentation_is(urls, link, monkeypatch):
    monkeypatch.delenv("SKTE_DOCS_URL", raising=False)
    fields = type("Fields", (), {"get_all": lambda self, name: urls})
    monkeypatch.setattr("skte._sklearn.metadata", lambda name: fields())
    assert CCFV()._get_doc_link() == (f"{link}estimators.html#skte.estimators.CCFV" if link else "")


def test_no_link_without_a_package_or_for_the_classes_of_others(monkeypatch):
    class Theirs(TransferabilityEstimator):
        pass

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.delenv("SKTE_DOCS_URL", raising=False)
    monkeypatch.setattr("skte._sklearn.metadata", missing)
    assert CCFV()._get_doc_link() == ""
    monkeypatch.setenv("SKTE_DOCS_URL", "https://docs.test")
    assert Theirs._get_doc_link(Theirs.__new__(Theirs)) == ""
