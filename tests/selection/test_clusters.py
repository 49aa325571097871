"""A bank on joblib's processes and on a dask cluster: the same ranking, whatever dies."""

import os
import pickle

import joblib
import numpy as np
import pytest
import torch

from skte import CCFV, BankEntry, LogME, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.exceptions import SkteError
from skte.extraction import CaseStore
from skte.selection import Engine
from tests.processes import process_server
from tests.reliability.models import Dying, Faulty, Killed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

EXTRACTOR = SegmentationFeatureExtractor(n_class_samples=60, n_case_samples=60, window_size=16)
PATIENCE = [
    "distributed.comm.timeouts.connect",
    "distributed.comm.timeouts.tcp",
    "distributed.deploy.lost-worker-timeout",
    "distributed.scheduler.worker-ttl",
]
BANK = [BankEntry(f"net{i}", Faulty, arguments={"seed": i}) for i in range(5)]


class DiesOnce(Faulty):
    """Ends its process, and is sound afterwards: as if a node of the cluster were lost."""

    def __init__(self, marker, seed=0):
        super().__init__(seed=seed)
        self.marker = marker

    def fail(self, x):
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os._exit(7)


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(4, size=(16, 16, 16))


@pytest.fixture(scope="module")
def expected(cases):
    return select().fit(BANK, cases)


@pytest.fixture(scope="module")
def cluster(forked_workers):
    distributed = pytest.importorskip("distributed", reason="needs dask: pip install distributed")
    dask = pytest.importorskip("dask")
    with (
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": 0,  # dask itself tries nothing again
                "distributed.worker.multiprocessing-method": process_server().get_start_method(),
                # A busy machine is slow to answer, and that is no failure.
                **dict.fromkeys(PATIENCE, "10h"),
            }
        ),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=None
        ) as local,
        distributed.Client(local, timeout="10h") as client,
    ):
        yield client


def select(**params):
    estimators = {"ccfv": CCFV(), "logme": LogME()}
    return ModelBankSelector(estimators, extractor=EXTRACTOR, reference=False, **params)


def same(selector, expected):
    np.testing.assert_array_equal(selector.scores_, expected.scores_)
    np.testing.assert_array_equal(
        selector.results_["score_logme"], expected.results_["score_logme"]
    )
    assert list(selector.ranking_) == list(expected.ranking_)


def test_loky_gives_the_same_ranking(cases, expected):
    with joblib.parallel_config("loky", n_jobs=2):
        same(select().fit(BANK, cases), expected)


def test_workers_share_a_cache(cases, tmp_path):
    with joblib.parallel_config("loky", n_jobs=2):
        first, again = (select(cache=tmp_path / "cache").fit(BANK[:3], cases) for _ in range(2))
    assert again.results_["n_cached"].tolist() == [4, 4, 4]
    same(again, first)


def test_dask_gives_the_same_ranking(cases, expected, cluster):
    with joblib.parallel_config("dask"):
        same(select().fit(BANK, cases), expected)
    pids = cluster.run(os.getpid)
    assert len(pids) == 2
    assert os.getpid() not in pids.values()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
def test_workers_that_die_cost_their_model_alone(cases, expected, cluster, tmp_path):
    lost = BankEntry("lost", DiesOnce, arguments={"marker": str(tmp_path / "died"), "seed": 4})
    bank = [BankEntry("killed", Killed), *BANK[:2], lost, *BANK[2:4]]
    with joblib.parallel_config("dask"):
        selector = select(error_score=np.nan).fit(bank, cases)
    assert (tmp_path / "died").exists()
    found = dict(zip(selector.names_, selector.scores_, strict=True))
    known = dict(zip(expected.names_, expected.scores_, strict=True))
    assert found["lost"] == known["net4"]
    assert {name: found[name] for name in ("net0", "net1", "net2", "net3")} == {
        name: known[name] for name in ("net0", "net1", "net2", "net3")
    }
    errors = dict(zip(selector.names_, selector.results_["error"], strict=True))
    assert {name for name, error in errors.items() if error} == {"killed"}
    assert "all workers that tried it died" in errors["killed"]


def test_failures_are_raised_with_the_name(cases, cluster):
    with joblib.parallel_config("dask"), pytest.raises(SkteError, match="Model 'dies': all work"):
        select().fit([BankEntry("dies", Dying), *BANK[:1]], cases)


def test_timeout_is_refused_on_a_cluster(cases, cluster):
    with joblib.parallel_config("dask"), pytest.raises(SkteError, match="timeout ends processes"):
        select(timeout=60).fit(BANK[:2], cases)


def test_recipes_travel_and_weights_do_not(cases, tmp_path, monkeypatch):
    """What a worker gets is as large for a network of 2 MB as for a tiny one."""
    sent = []

    def catch(jobs, n_jobs, timeout):
        sent.append([len(pickle.dumps(job)) for job in jobs])
        yield from ()

    monkeypatch.setattr("skte.selection._engine.run_apart", catch)
    entries = []
    for name, widths in {"small": (4, 8), "large": (64, 128)}.items():
        torch.save(small_unet(widths=widths).state_dict(), tmp_path / f"{name}.pt")
        arguments = {"widths": widths}
        entries.append(
            BankEntry(name, small_unet, arguments=arguments, weights=tmp_path / f"{name}.pt")
        )
    assert (tmp_path / "large.pt").stat().st_size > 2_000_000
    list(Engine.from_settings(CCFV(), extractor=EXTRACTOR, n_jobs=2).run(entries, []))
    small, large = sent[0]
    assert abs(large - small) < 100
    assert large < 20_000
    assert len(pickle.dumps(CaseStore(2**30))) < 1000
