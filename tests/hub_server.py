"""A server that answers as the Hugging Face Hub does, on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

SHA = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_server(
    root: Path, repository: str, extra_names: tuple[str, ...] = ()
) -> Iterator[tuple[str, list[str]]]:
    """Serve the files of a folder as a repository; yields its address and what was asked for.

    `extra_names` are listed as files, too, whatever they may be.
    """
    files = {p.relative_to(root).as_posix(): p for p in sorted(root.rglob("*")) if p.is_file()}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = unquote(self.path.partition("?")[0])
            asked.append(path)
            if path.startswith(f"/api/models/{repository}/tree/"):
                self._json([self._entry(name) for name in [*files, *extra_names]], body)
            elif path.startswith(f"/api/models/{repository}"):
                names = [{"rfilename": name} for name in [*files, *extra_names]]
                self._json({"id": repository, "sha": SHA, "siblings": names}, body)
            else:
                file = files.get(path.removeprefix(f"/{repository}/resolve/{SHA}/"))
                if file is None:
                    self.send_error(404)
                else:
                    self._send(file.read_bytes(), body)

        def _entry(self, name: str) -> dict[str, object]:
            content = files[name].read_bytes() if name in files else b""
            digest = hashlib.sha1(content).hexdigest()
            return {"type": "file", "path": name, "size": len(content), "oid": digest}

        def _json(self, content: object, body: bool) -> None:
            self._send(json.dumps(content).encode(), body, "application/json")

        def _send(self, content: bytes, body: bool, kind: str = "application/octet-stream") -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", SHA)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
