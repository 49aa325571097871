"""The cache gives back what was stored, never half of it, and never fails a run."""

import errno
import os
import pickle
import shutil
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from skte.exceptions import SkteError, SkteWarning
from skte.extraction import FeatureCache, make_key
from skte.features import CaseFeatures, LayerSample, pack_case
from tests.processes import output_of

KEY = make_key(entry="e", case="c")
OTHER = make_key(entry="e", case="d")
DAY = 86_400


def case_of(seed=0, n=20):
    rng = np.random.default_rng(seed)
    sample = LayerSample(
        rng.normal(size=(n, 3)).astype("f4"), rng.integers(0, 2, n), rng.normal(size=(4, 3))
    )
    return CaseFeatures(f"case {seed}", {"up": sample}, None, {"seed": seed})


@pytest.fixture(autouse=True)
def _no_warning_given_yet(monkeypatch):
    monkeypatch.setattr("skte.extraction._cache._WARNED", set())


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


def path_of(cache, key, ending=".skf"):
    return cache.root / key[:2] / f"{key}{ending}"


def leftover(cache, key=KEY, *, age=DAY):
    path = cache.root / key[:2] / f".{key}.skf.{'0' * 16}.tmp"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def used(path, days_ago):
    os.utime(path, (time.time() - days_ago * DAY,) * 2)


# What is stored comes back


def test_features_come_back_as_they_were(cache):
    assert cache.load(KEY) is None
    assert not cache.root.exists()  # looking makes nothing
    assert cache.store(KEY, case_of())
    assert pack_case(cache.load(KEY)) == pack_case(case_of())
    assert cache.load(OTHER) is None
    assert cache.store(KEY, case_of(1))
    assert cache.load(KEY).case_id == "case 1"


def test_records_come_back_and_stand_beside_features(cache):
    record = {"layers": [{"name": "up", "stride": [1.0, 2.0]}], "n": 3, "none": None}
    assert cache.load_record(KEY) is None
    assert cache.store_record(KEY, {**record, "n": np.int64(3)})
    assert cache.load(KEY) is None
    assert cache.store(KEY, case_of())
    assert cache.load_record(KEY) == record


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({"a": object()}, TypeError),
        ({1: 2}, TypeError),
        ({"a": {2: 3}}, TypeError),
        ({"a": "x" * 2**20}, ValueError),
    ],
)
def test_records_that_json_cannot_hold(record, error, cache):
    with pytest.raises(error, match="record"):
        cache.store_record(KEY, record)


@pytest.mark.parametrize("key", ["", "ab", "../../etc/passwd", KEY.upper(), KEY + "/x", KEY + "\n"])
def test_only_keys_of_make_key_name_files(key, cache):
    for call in (cache.load, cache.load_record, lambda k: cache.store(k, case_of())):
        with pytest.raises(ValueError, match="is not a key of a cache"):
            call(key)


def test_it_travels_and_holds_no_state(cache, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    relative = FeatureCache("cache")
    assert relative == cache
    again = pickle.loads(pickle.dumps(relative))
    monkeypatch.chdir("/")
    again.store(KEY, case_of())
    assert cache.load(KEY)
    assert vars(cache) == {"root": tmp_path / "cache"}


def test_keys():
    assert len(KEY) == 64
    assert make_key(a=1, b=(2, "x")) == make_key(b=[2, "x"], a=1)
    parts = [
        {"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": None}, {"a": [1]}, {"a": [[1]]},
        {"b": 1}, {"a": {"b": 1}}, {"a": {"b": None}}, {"a": ""}, {"a": []}, {"a": {}}, {},
    ]  # fmt: skip
    assert len({make_key(**part) for part in parts}) == len(parts)
    assert make_key(a=np.int64(1)) == make_key(a=1)
    with pytest.raises(TypeError, match=r"a\['b'\] is a set"):
        make_key(a={"b": {1}})
    with pytest.raises(TypeError, match="a is a dict"):
        make_key(a={1: 2})


def test_a_key_is_what_it_was():
    # A stored value: it changes when the format does, and must not change otherwise.
    assert KEY == "2578070f941dc98989862d2e8147808a74f570dc53ae9909f302642b860c3a2b"


# Damage


def damaged(data):
    middle = len(data) // 2
    yield from (data[:-1], data[:middle], b"", data + b"\0", os.urandom(len(data)))
    yield data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    yield data.replace(KEY.encode(), OTHER.encode())


@pytest.mark.parametrize("kind", range(7))
@pytest.mark.parametrize("ending", [".skf", ".json"])
def test_a_damaged_file_is_removed_and_missed(kind, ending, cache):
    cache.store(KEY, case_of())
    cache.store_record(KEY, {"a": 1})
    path = path_of(cache, KEY, ending)
    path.write_bytes(list(damaged(path.read_bytes()))[kind])
    load = cache.load if ending == ".skf" else cache.load_record
    assert cache.verify() == [path]
    assert path.exists()
    with pytest.warns(SkteWarning, match=f"{path.name} are damaged: .* It was removed"):
        assert load(KEY) is None
    assert not path.exists()
    assert load(KEY) is None
    assert cache.verify() == []
    cache.store(KEY, case_of())
    assert cache.load(KEY)


def test_a_file_under_another_name_is_damaged(cache):
    cache.store(KEY, case_of())
    path_of(cache, OTHER).parent.mkdir(exist_ok=True)
    path_of(cache, KEY).rename(path_of(cache, OTHER))
    with pytest.warns(SkteWarning, match="not the entry that its name states"):
        assert cache.load(OTHER) is None


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{}", "9" * 5000, "x" * (2**20 + 1)])
def test_hostile_records(text, cache):
    cache.store_record(KEY, {})
    path_of(cache, KEY, ".json").write_text(text)
    with pytest.warns(SkteWarning, match="are damaged"):
        assert cache.load_record(KEY) is None


# Failures cost the caching, not the run


def refuse(code):
    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return fail


def short_then_full(handle, data, write=os.write, calls=[]):  # noqa: B006
    calls.append(handle)
    if len(calls) % 2:
        return write(handle, data[:10])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("name", "fail"),
    [
        ("write", refuse(errno.ENOSPC)),
        ("write", short_then_full),
        ("open", refuse(errno.EROFS)),
        ("open", refuse(errno.EACCES)),
        ("close", None),
    ],
)
def test_a_folder_that_cannot_be_written_costs_one_warning(name, fail, cache, monkeypatch):
    cache.store(OTHER, case_of())
    if name == "close":  # a network folder that is full

        def fail(handle, close=os.close):
            close(handle)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.warns(SkteWarning, match="could not be (written|read)") as caught:
            done = [cache.store(KEY, case_of()), cache.store_record(KEY, {})] * 2
    assert not any(done)
    assert len(caught) == 1
    assert str(cache.root) in str(caught[0].message)
    assert "Free some space, change the permissions, or name another folder" in str(
        caught[0].message
    )
    assert cache.describe()["n_leftovers"] == 0
    assert cache.load(KEY) is None
    assert cache.load(OTHER)
    assert cache.store(KEY, case_of())  # as soon as there is space again


def test_short_writes_are_continued(cache, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    assert cache.store(KEY, case_of())
    assert pack_case(cache.load(KEY)) == pack_case(case_of())


def test_a_file_size_limit_is_a_full_disk(cache):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.warns(SkteWarning, match="File too large"):
            done = [cache.store_record(KEY, {}), cache.store(KEY, case_of(n=1000))]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done == [True, False]
    assert cache.describe()["n_leftovers"] == 0
    assert cache.describe()["n_records"] == 1


def test_a_read_that_fails_is_a_miss_with_one_warning(cache, monkeypatch):
    cache.store(KEY, case_of())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", refuse(errno.EIO))
        with pytest.warns(SkteWarning, match="could not be read: Input/output error") as caught:
            found = [cache.load(KEY), cache.load(KEY)]
    assert found == [None, None]
    assert len(caught) == 1
    assert cache.load(KEY)


def test_a_read_only_cache_serves(cache, monkeypatch):
    cache.store(KEY, case_of())
    monkeypatch.setattr(os, "utime", refuse(errno.EROFS))
    assert cache.load(KEY)


def test_a_damaged_file_that_cannot_be_removed(cache, monkeypatch):
    cache.store(KEY, case_of())
    path_of(cache, KEY).write_bytes(b"")
    monkeypatch.setattr(Path, "unlink", refuse(errno.EACCES))
    with pytest.warns(SkteWarning, match="could not be removed"):
        assert cache.load(KEY) is None


def test_a_root_under_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(SkteError, match="is a file, or a part of its path is"):
            FeatureCache(root)


def test_a_root_that_becomes_a_file(cache):
    cache.root.write_text("mine")
    with pytest.warns(SkteWarning, match="is a file"):
        assert not cache.store(KEY, case_of())
    with pytest.warns(SkteWarning, match="could not be read"):
        assert cache.load(KEY) is None
    assert cache.root.read_text() == "mine"


def test_a_folder_removed_in_the_middle_is_made_again(cache):
    cache.store(KEY, case_of())
    shutil.rmtree(cache.root)
    assert cache.load(KEY) is None
    assert cache.store(KEY, case_of())
    assert cache.load(KEY)


# Folders that are something else


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SkteError, match="holds no cache of skte"):
        FeatureCache(tmp_path)


def test_a_folder_that_became_something_else_is_not_written(cache):
    cache.root.mkdir()
    (cache.root / "notes.txt").write_text("mine")
    with pytest.warns(SkteWarning, match="holds no cache of skte"):
        assert not cache.store(KEY, case_of())
    assert len(list(cache.root.iterdir())) == 1


@pytest.mark.parametrize("marker", ["", "{", "[" * 4000, "x" * 5000])
def test_a_marker_cut_off_by_a_crash_is_made_again(marker, cache):
    cache.store(KEY, case_of())
    path = cache.root / "skte-cache.json"
    path.write_text(marker)
    assert FeatureCache(cache.root).load(KEY) is not None
    assert cache.store(KEY, case_of())
    assert "skte feature cache" in path.read_text()
    path.write_text(marker)
    (cache.root / "notes.txt").write_text("mine")
    with pytest.raises(SkteError, match="damaged"):  # it may be somebody else's file
        FeatureCache(cache.root)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ('{"format": "skte feature cache", "version": 2}', "in format 2, and this version"),
        ('{"format": "skte feature cache"}', "in format None"),
        ('{"format": "other"}', "damaged skte-cache.json"),
        ("[]", "damaged"),
    ],
)
def test_the_marker_is_checked(marker, message, cache):
    cache.store(KEY, case_of())
    (cache.root / "skte-cache.json").write_text(marker)
    with pytest.raises(SkteError, match=message):
        FeatureCache(cache.root)


def test_a_marker_that_is_a_link(cache, tmp_path):
    cache.store(KEY, case_of())
    (cache.root / "skte-cache.json").rename(tmp_path / "marker")
    (cache.root / "skte-cache.json").symlink_to(tmp_path / "marker")
    with pytest.raises(SkteError, match="marker that is a link"):
        FeatureCache(cache.root)


def test_links_lead_nowhere(cache, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f"{KEY}.skf").write_bytes(b"mine")
    cache.store(OTHER, case_of())
    old = leftover(cache)
    old.rename(outside / old.name)
    (cache.root / KEY[:2]).rmdir()
    (cache.root / KEY[:2]).symlink_to(outside)
    before = {path: path.read_bytes() for path in outside.iterdir()}
    with pytest.warns(SkteWarning, match="is a link"):
        assert cache.load(KEY) is None
    with pytest.warns(SkteWarning, match="is a link"):
        assert not cache.store(KEY, case_of())
    assert cache.describe()["n_entries"] == 1
    assert cache.prune(max_bytes=0).n_files == 1
    assert cache.clear() == (0, 0, 0)
    assert {path: path.read_bytes() for path in outside.iterdir()} == before


def test_an_entry_that_is_a_link_is_replaced_not_followed(cache, tmp_path):
    cache.store(OTHER, case_of())
    (tmp_path / "mine").write_bytes(b"mine")
    path_of(cache, KEY).parent.mkdir(exist_ok=True)
    path_of(cache, KEY).symlink_to(tmp_path / "mine")
    with pytest.warns(SkteWarning, match="could not be read"):
        assert cache.load(KEY) is None
    assert cache.store(KEY, case_of())
    assert not path_of(cache, KEY).is_symlink()
    assert (tmp_path / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_an_entry_that_is_no_file(make, cache):
    cache.store(OTHER, case_of())
    path_of(cache, KEY).parent.mkdir(exist_ok=True)
    make(path_of(cache, KEY))
    with pytest.warns(SkteWarning, match="could not be read"):
        assert cache.load(KEY) is None
    assert cache.describe()["n_entries"] == 1


def test_a_root_that_is_a_link_is_the_users_choice(cache, tmp_path):
    cache.store(KEY, case_of())
    (tmp_path / "link").symlink_to(cache.root)
    assert FeatureCache(tmp_path / "link").load(KEY)


# Upkeep


def test_an_empty_cache(cache):
    assert cache.describe()["n_entries"] == 0
    assert cache.describe()["oldest"] is None
    assert cache.prune(max_bytes=0) == cache.clear() == (0, 0, 0)
    assert cache.verify() == []
    assert not cache.root.exists()


def test_describe(cache):
    cache.store(KEY, case_of())
    cache.store_record(OTHER, {})
    used(path_of(cache, KEY), (time.time() - 1e9) / DAY)
    half = leftover(cache)
    found = cache.describe()
    files = [path_of(cache, KEY), path_of(cache, OTHER, ".json"), half]
    assert found["n_bytes"] == sum(path.stat().st_size for path in files)
    assert (found["n_entries"], found["n_records"], found["n_leftovers"]) == (1, 1, 1)
    assert found["oldest"] == "2001-09-09T01:46:40+00:00"


def test_what_was_not_used_for_longest_goes_first(cache):
    keys = [make_key(i=i) for i in range(5)]
    for days, key in enumerate(keys):
        cache.store(key, case_of())
        used(path_of(cache, key), days + 1)
    assert cache.load(keys[4])  # a read is a use
    n_bytes = path_of(cache, keys[0]).stat().st_size
    removed = cache.prune(max_bytes=3 * n_bytes)
    assert removed == (2, 2 * n_bytes, 0)
    assert [i for i in range(5) if cache.load(keys[i])] == [0, 1, 4]
    assert cache.prune(max_bytes=3 * n_bytes) == (0, 0, 0)


def test_age_of_entries_and_records(cache):
    cache.store(KEY, case_of())
    cache.store_record(KEY, {})
    used(path_of(cache, KEY, ".json"), 3)
    assert cache.prune(max_age_days=4).n_files == 0
    assert cache.prune(max_age_days=2).n_files == 1
    assert cache.load(KEY)
    assert cache.load_record(KEY) is None


def test_a_clock_that_was_ahead(cache):
    for key in (KEY, OTHER):
        cache.store(key, case_of())
    used(path_of(cache, KEY), -5000)
    used(path_of(cache, OTHER), 1)
    size = path_of(cache, KEY).stat().st_size
    begun = time.time()
    assert cache.prune(max_age_days=10).n_files == 0
    # Ages from now on; file systems may round times to two seconds.
    assert begun - 2 <= path_of(cache, KEY).stat().st_mtime <= time.time() + 2
    used(path_of(cache, KEY), -5000)
    assert cache.prune(max_bytes=size).n_files == 1
    assert cache.load(KEY)


@pytest.mark.parametrize("limit", [-1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["max_bytes", "max_age_days"])
def test_limits_are_checked(name, limit, cache):
    with pytest.raises(ValueError, match=name):
        cache.prune(**{name: limit})


def test_clear_leaves_what_is_not_ours(cache):
    cache.store(KEY, case_of())
    cache.store_record(OTHER, {})
    foreign = [
        cache.root / "notes.txt",
        cache.root / KEY[:2] / "notes.skf",
        cache.root / KEY[:2] / f"{'0' * 64}.skf",
        cache.root / "zz" / f"{KEY}.skf",
    ]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert cache.clear().n_files == 2
    assert all(path.read_text() == "mine" for path in foreign)
    assert not (cache.root / OTHER[:2]).exists()
    assert FeatureCache(cache.root).store(KEY, case_of())


def test_verify_touches_nothing(cache):
    cache.store(KEY, case_of())
    used(path_of(cache, KEY), 9)
    before = path_of(cache, KEY).stat().st_mtime
    assert cache.verify() == []
    assert path_of(cache, KEY).stat().st_mtime == before


# Other processes


@pytest.mark.parametrize("age", [2 * DAY, 5, -2 * DAY])
@pytest.mark.parametrize("sweep", ["prune", "clear", "store"])
def test_leftovers_are_swept(sweep, age, cache):
    cache.store(OTHER, case_of())
    path = leftover(cache, age=age)
    if sweep == "store":
        cache.store(KEY, case_of())
    else:
        assert getattr(cache, sweep)().n_files == 1 + (sweep == "clear")
    assert not path.exists()


def test_half_a_marker_of_a_killed_run_is_swept(cache):
    cache.root.mkdir()
    path = cache.root / f".skte-cache.json.{'0' * 16}.tmp"
    path.write_text('{"form')
    used(path, 1)
    cache = FeatureCache(cache.root)
    assert cache.store(KEY, case_of())
    assert not path.exists()
    assert cache.load(KEY) is not None


def test_a_write_looks_at_no_finished_file(cache, monkeypatch):
    """Or storing takes as long as what is there already, and a large bank its square."""
    assert cache.store(KEY, case_of())
    left, looked = leftover(cache), []

    def look(path, kind, n_bytes, modified):
        looked.append(path)
        return SimpleNamespace(path=path, kind=kind, n_bytes=n_bytes, modified=modified)

    monkeypatch.setattr("skte.extraction._cache_files.CacheFile", look)
    assert cache.store(KEY, case_of(1))
    assert looked == [left]


def test_young_leftovers_and_those_in_work_stay(cache):
    fcntl = pytest.importorskip("fcntl")
    cache.store(OTHER, case_of())
    path = leftover(cache, age=0)
    cache.prune()
    assert path.exists()
    used(path, 2)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        cache.prune()
        cache.clear()
        assert path.exists()
    cache.prune()
    assert not path.exists()


@pytest.mark.parametrize("broken", ["missing", "unsupported"])
def test_where_locks_do_not_work_age_alone_decides(broken, cache, monkeypatch):
    if broken == "missing":
        monkeypatch.setattr("skte._files.fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", refuse(errno.ENOLCK))
    cache.store(OTHER, case_of())
    path = leftover(cache, age=DAY / 2)
    cache.prune()
    assert path.exists()
    used(path, 2)
    cache.prune()
    assert not path.exists()


PRELUDE = """
import os, random, signal, sys, time, traceback
import numpy as np
from skte.extraction import FeatureCache, make_key
from skte.features import CaseFeatures, LayerSample
cache = FeatureCache(sys.argv[1])

def key(i):
    return make_key(i=i)

def case(seed, n):
    sample = LayerSample(np.full((n, 10), seed + 0.5), np.arange(n), np.ones((1, 10)))
    return CaseFeatures(f"case {seed}", {"up": sample}, None, {"n": n})

def check(i):
    found = cache.load(key(i))
    if found is not None:
        n, seed = found.info["n"], int(found.case_id.split()[1])
        assert found.layers["up"].X.shape == (n, 10)
        assert (found.layers["up"].X == seed + 0.5).all()
    return found is not None

def forked(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
"""

KILLED = """
import warnings; warnings.simplefilter("error")

at_work, ready = os.pipe()

def write_for_ever():
    os.write(ready, b".")
    for i in range(10**9):
        cache.store(key(i % 4), case(i, 20_000))
        cache.store_record(key(i % 4), {"i": i})

chance, n_leftovers = random.Random(0), 0
for round in range(400):
    if round >= 40 and n_leftovers:
        break  # seen what it is for; a busy machine may take more rounds
    pid = forked(write_for_ever)
    os.read(at_work, 1)
    time.sleep(chance.uniform(0, 0.03))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for i in range(4):
        check(i)
        cache.load_record(key(i))
    assert cache.verify() == []
    n_leftovers += cache.describe()["n_leftovers"]
    assert cache.store(key(0), case(round, 100))
    assert cache.load(key(0)).case_id == f"case {round}"
assert n_leftovers, "no writer was killed at work"
cache.clear()
assert cache.describe()["n_bytes"] == 0
print("done", flush=True)
"""

TOGETHER = """
def work(worker):
    def run():
        chance = random.Random(worker)
        for i in range(150):
            j = chance.randrange(6)
            if not check(j):
                assert cache.store(key(j), case(i, chance.randrange(1000)))
            if worker == 0 and i % 5 == 0:
                cache.prune(max_bytes=100_000)
            if worker == 1 and i % 20 == 0:
                cache.clear()
    return run

pids = [forked(work(worker)) for worker in range(4)]
assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
assert cache.verify() == []
print("done", cache.describe()["n_leftovers"])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_writers_that_are_killed_and_processes_that_share_a_folder(cache):
    """No half file is left, also while the folder is pruned and cleared."""
    assert output_of(PRELUDE + KILLED + TOGETHER, cache.root) == "done\ndone 0\n"


def test_files_have_the_permissions_that_the_user_gives_to_others(cache):
    mask = os.umask(0o002)
    try:
        cache.store(KEY, case_of())
    finally:
        os.umask(mask)
    assert path_of(cache, KEY).stat().st_mode & 0o777 == 0o664
    assert path_of(cache, KEY).parent.stat().st_mode & 0o777 == 0o775


def test_no_warning_without_need(cache):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.store(KEY, case_of())
        cache.load(KEY)
        cache.prune(max_bytes=10**9, max_age_days=1)
    assert Path(cache.root, "skte-cache.json").is_file()
