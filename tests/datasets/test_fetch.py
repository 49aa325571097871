"""Downloads from a local server that drops connections, corrupts bytes and worse."""

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from skte.cli import main
from skte.datasets import (
    MSD_TASKS,
    _download,  # to wait less, and for limits that no test reaches
    cache_home,
    fetch_msd,
    load_dataset,
    make_phantoms,
)
from skte.demo import write_msd
from skte.exceptions import DatasetError

NAME = "Task04_Hippocampus"


class Server(ThreadingHTTPServer):
    """Serves one body; the switches below make it misbehave."""

    daemon_threads = True

    def __init__(self, body):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = body
        self.drop_after = []  # bytes of each answer, after which the connection ends
        self.ranges = True
        self.states_length = True
        self.length_error = 0
        self.status = []  # of the next answers
        self.asked = []  # (path, Range) of each request
        self.sent = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        if server.status and (status := server.status.pop(0)) != 200:
            self.send_error(status)
            return
        start = self._start()
        if start is None:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        total = len(server.body) + server.length_error
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if server.states_length:
            self.send_header("Content-Length", str(total - start))
        self.end_headers()
        rest = server.body[start:]
        if server.drop_after:
            rest = rest[: server.drop_after.pop(0)]
        server.sent += len(rest)  # first: who has read all of it looks at the count
        self.wfile.write(rest)

    def _start(self):
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if not match or not self.server.ranges:
            return 0
        return int(match[1]) if int(match[1]) < len(self.server.body) else None

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A tar of a small task as the real ones are, with the files that macOS leaves."""
    folder = write_msd(tmp_path_factory.mktemp("a"), make_phantoms(2, size=(8, 8, 8)), NAME)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, arcname=NAME)
        add_file(tar, f"{NAME}/._dataset.json", b"resource fork")
        add_file(tar, f"./._{NAME}", b"resource fork")
    return buffer.getvalue()


def add_file(tar, name, content=b"x", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in fields.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def serve():
    servers = []

    def start(body):
        server = Server(body)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(serve, archive):
    return serve(archive)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(_download, "_PAUSE", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fetch(server, folder, **options):
    options.setdefault("checksum", "md5:" + hashlib.md5(server.body).hexdigest())
    return fetch_msd(NAME, folder=folder, base_url=server.url, **options)


def left(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_download_and_once_only(server, tmp_path):
    told = []
    folder = fetch(server, tmp_path / "new", progress=lambda *args: told.append(args))
    assert folder == tmp_path / "new" / NAME
    assert [c["case_id"] for c in load_dataset(folder)] == ["ellipsoids_000", "ellipsoids_001"]
    assert told[-1] == (len(server.body), len(server.body))
    assert left(folder.parent) == [NAME]
    assert not list(folder.rglob("._*"))
    assert fetch(server, tmp_path / "new") == folder
    assert server.asked == [(f"/{NAME}.tar", None)]


def test_a_dropped_connection_goes_on_where_it_ended(server, tmp_path):
    server.drop_after = [1000, 5000, 0, 3000]
    folder = fetch(server, tmp_path)
    assert len(load_dataset(folder)) == 2
    assert [asked for _, asked in server.asked] == [
        None, "bytes=1000-", "bytes=6000-", "bytes=6000-", "bytes=9000-",
    ]  # fmt: skip
    assert server.sent == len(server.body)


def test_a_later_call_goes_on_too(server, tmp_path):
    server.drop_after = [1000] + [0] * 20
    with pytest.raises(
        DatasetError, match=r"the connection dropped, 5 times in a row.*to continue"
    ):
        fetch(server, tmp_path)
    assert (tmp_path / f"{NAME}.tar.part").stat().st_size == 1000
    assert not (tmp_path / NAME).exists()
    server.drop_after.clear()
    fetch(server, tmp_path)
    assert server.asked[-1] == (f"/{NAME}.tar", "bytes=1000-")
    assert left(tmp_path) == [NAME]


def test_another_version_on_the_server_begins_anew(server, tmp_path):
    server.drop_after = [1000] + [0] * 5
    with pytest.raises(DatasetError, match="dropped"):
        fetch(server, tmp_path)
    server.body = b"\1" * 1000 + server.body
    with pytest.raises(DatasetError, match="not a tar archive"):  # the checksum is right
        fetch(server, tmp_path)
    assert server.sent == 1000 + len(server.body) - 1000 + len(server.body)


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    server.drop_after = [1000, 2000]
    assert len(load_dataset(fetch(server, tmp_path))) == 2
    assert server.sent == 3000 + len(server.body)


def test_a_server_that_states_no_length(server, tmp_path):
    server.states_length = False
    assert len(load_dataset(fetch(server, tmp_path))) == 2
    told = []
    server.drop_after = [1000]  # looks like the end; the checksum tells
    fetch(server, tmp_path / "b", progress=lambda *args: told.append(args))
    assert told[0] == (1000, None)


@pytest.mark.parametrize("error", [-600, 700])
def test_a_wrong_length_ends_with_a_message(server, tmp_path, error):
    server.length_error = error
    with pytest.raises(DatasetError, match=r"wrong md5 twice|times in a row"):
        fetch(server, tmp_path)
    assert not (tmp_path / NAME).exists()
    assert len(server.asked) < 20


def test_corrupted_bytes_are_fetched_again_once(server, serve, archive, tmp_path):
    broken = bytearray(archive)
    broken[700] ^= 1
    bad = serve(bytes(broken))
    checksum = "sha256:" + hashlib.sha256(archive).hexdigest()
    with pytest.raises(DatasetError, match=r"wrong sha256 twice: [0-9a-f]{64} where"):
        fetch(bad, tmp_path, checksum=checksum)
    assert len(bad.asked) == 2
    assert left(tmp_path) == []
    # What an earlier run left is damaged, the server is not.
    (tmp_path / f"{NAME}.tar.part").write_bytes(bytes(broken[:2000]))
    fetch(server, tmp_path, checksum=checksum)
    assert [asked for _, asked in server.asked] == ["bytes=2000-", None]
    assert left(tmp_path) == [NAME]


def test_more_on_disk_than_on_the_server(server, tmp_path):
    (tmp_path / f"{NAME}.tar.part").write_bytes(b"x" * (len(server.body) + 10))
    fetch(server, tmp_path)
    assert left(tmp_path) == [NAME]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    server.status = [503, 429, 500]
    fetch(server, tmp_path)
    assert len(server.asked) == 4
    server.status = [404]
    with pytest.raises(DatasetError, match=r"the server answered 404"):
        fetch(server, tmp_path / "b")
    assert len(server.asked) == 5


def test_no_server(serve, archive, tmp_path):
    server = serve(archive)
    server.shutdown()
    server.server_close()
    with pytest.raises(DatasetError, match=r"refused.*5 times in a row"):
        fetch(server, tmp_path)


def test_too_much(server, tmp_path, monkeypatch):
    monkeypatch.setattr("skte.datasets._download._MOST_BYTES", 3000)
    for states_length in (True, False):
        server.states_length = states_length
        with pytest.raises(DatasetError, match="more than the 3000 bytes allowed"):
            fetch(server, tmp_path)


def test_a_full_disk_is_told_before(server, tmp_path, monkeypatch):
    usage = _download.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(_download.shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(DatasetError, match=r"and .* has 10 left: make room"):
        fetch(server, tmp_path)


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot be written"):
        fetch(server, tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checksum": "md5:12"}, "checksum must be"),
        ({"checksum": "sha1:" + "0" * 40}, "checksum must be"),
        ({"base_url": "file:///etc"}, "begins with http"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(DatasetError, match=message):
        fetch_msd(NAME, folder=tmp_path, **options)
    with pytest.raises(DatasetError, match="choose one of Task01"):
        fetch_msd("../Task04", folder=tmp_path)


# One process imports, which takes seconds, and forks.
SCRIPT = """
import os, sys
from skte.datasets import fetch_msd
name, folder, url, checksum = sys.argv[1:]
children = []
for _ in range(2):
    children.append(os.fork())
    if not children[-1]:
        print(fetch_msd(name, folder=folder, base_url=url, checksum=checksum), flush=True)
        os._exit(0)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_two_processes_at_once(server, tmp_path):
    checksum = "md5:" + hashlib.md5(server.body).hexdigest()
    command = [sys.executable, "-c", SCRIPT, NAME, str(tmp_path), server.url, checksum]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [str(tmp_path / NAME)] * 2
    assert server.sent == len(server.body)  # one downloaded, the other waited
    assert left(tmp_path) == [NAME]


def test_leftovers_of_a_killed_process_are_swept(server, tmp_path):
    (tmp_path / f".{NAME}-dead" / NAME).mkdir(parents=True)
    (tmp_path / f"{NAME}.tar").write_bytes(server.body)  # whole, but not unpacked
    fetch(server, tmp_path)
    assert left(tmp_path) == [NAME]
    assert server.asked == []


# Archives that no one should unpack.


def tar_of(*members, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        add_file(tar, f"{NAME}/dataset.json", b"{}")
        for name, fields in members:
            add_file(tar, name, **fields)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ((f"{NAME}/../../evil", {}), "leads out"),
        (("/tmp/evil", {}), "leads out"),
        ((f"{NAME}\\..\\..\\evil", {}), "leads out"),
        (("C:/evil", {}), "leads out"),
        (("../evil", {}), "leads out"),
        (("Other/evil", {}), "lies beside"),
        ((f"{NAME}/link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}), "neither a plain"),
        ((f"{NAME}/hard", {"type": tarfile.LNKTYPE, "linkname": "../../x"}), "neither a plain"),
        ((f"{NAME}/pipe", {"type": tarfile.FIFOTYPE}), "neither a plain"),
        ((f"{NAME}/device", {"type": tarfile.CHRTYPE}), "neither a plain"),
        ((f"{NAME}/" + "a" * 300, {}), "name is not valid for a file"),
        ((f"{NAME}/a\x1b[2J", {}), "name is not valid for a file"),
        ((f"{NAME}/{'d/' * 200}x", {}), "too long, or lies too deep"),
        ((f"{NAME}/DATASET.json", {}), "occurs twice"),
        ((f"{NAME}/dataset.json", {}), "occurs twice"),
        ((f"{NAME}/dataset.json/x", {}), "parent folder, is that of a file"),
        ((NAME, {}), "is that of a file"),
    ],
    ids=lambda value: None,
)
def test_hostile_members(serve, tmp_path, member, message):
    server = serve(tar_of(member))
    with pytest.raises(DatasetError, match=rf"not unpacked: .*{message}.*Nothing of it was kept"):
        fetch(server, tmp_path / "in")
    assert left(tmp_path / "in") == [f"{NAME}.tar"]
    assert left(tmp_path) == ["in"]


def test_a_sparse_file_that_would_fill_the_disk(serve, tmp_path):
    member = tarfile.TarInfo(f"{NAME}/bomb")
    member.size = 512
    member.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": f"{NAME}/bomb",
        "GNU.sparse.realsize": str(2**50),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(b"0\n".ljust(512, b"\0")))
    server = serve(buffer.getvalue())
    with pytest.raises(DatasetError, match="not unpacked"):
        fetch(server, tmp_path)


def test_more_files_than_anyone_needs(serve, tmp_path, monkeypatch):
    monkeypatch.setattr("skte.datasets._download._MOST_FILES", 3)
    server = serve(tar_of(*((f"{NAME}/{i}", {}) for i in range(5))))
    with pytest.raises(DatasetError, match="more than 3 files"):
        fetch(server, tmp_path)


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_compressed_archives_are_not_expected(serve, tmp_path, mode):
    with pytest.raises(DatasetError, match="not a tar archive"):
        fetch(serve(tar_of(mode=mode)), tmp_path)


def test_archives_cut_short_and_of_other_things(serve, archive, tmp_path):
    with pytest.raises(DatasetError, match=r"cut short|not a tar archive|larger than"):
        fetch(serve(archive[:1100]), tmp_path / "a")
    assert not (tmp_path / "a" / NAME).exists()
    with pytest.raises(DatasetError, match="not a tar archive"):
        fetch(serve(b"<html>not here</html>"), tmp_path / "b")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w"):
        pass
    with pytest.raises(DatasetError, match="holds no folder"):
        fetch(serve(buffer.getvalue()), tmp_path / "c")


def test_where_downloads_are_kept(monkeypatch, tmp_path, server):
    monkeypatch.setenv("SKTE_HOME", str(tmp_path / "home"))
    checksum = "md5:" + hashlib.md5(server.body).hexdigest()
    folder = fetch_msd(NAME, base_url=server.url, checksum=checksum)
    assert folder == tmp_path / "home" / "datasets" / NAME
    monkeypatch.delenv("SKTE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_home() == tmp_path / "xdg" / "skte"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_home().parts[-3:] == ("Library", "Caches", "skte")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_home() == tmp_path / "local" / "skte"


def test_checksums_are_those_that_monai_lists():
    from monai.apps import DecathlonDataset

    assert {name: f"md5:{digits}" for name, digits in DecathlonDataset.md5.items()} == MSD_TASKS
    for name, url in DecathlonDataset.resource.items():
        assert url == f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{name}.tar"
    assert fetch_msd.__kwdefaults__["base_url"] == url.rsplit("/", 1)[0]


def test_shell(server, tmp_path, capsys, monkeypatch):
    checksum = "md5:" + hashlib.md5(server.body).hexdigest()
    options = ["--folder", str(tmp_path), "--base-url", server.url, "--checksum", checksum]
    assert main(["fetch", NAME, *options]) == 0
    assert capsys.readouterr() == (f"{tmp_path / NAME}\n", "")
    assert main(["fetch", "--list"]) == 0
    assert capsys.readouterr().out.split() == list(MSD_TASKS)
    assert main(["fetch"]) == 2
    assert main(["fetch", "Task11"]) == 2
    assert "choose one of" in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    options[1] = str(tmp_path / "again")
    assert main(["fetch", NAME, *options]) == 0
    assert re.search(rf"{NAME}: [\d.]+ MB 100%\n$", capsys.readouterr().err)
    assert os.listdir(tmp_path / "again" / NAME)
