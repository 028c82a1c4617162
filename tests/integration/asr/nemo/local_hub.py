"""A hub on this machine that speaks as much of Hugging Face's protocol as fetching a model needs."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_MODEL = re.compile(r"/api/models/(?P<name>[^?]+?)(/revision/[^/]+)?")
_TREE = re.compile(r"/api/models/(?P<name>.+)/tree/[^/]+")
_FILE = re.compile(rf"/(?P<name>.+)/resolve/{COMMIT}/(?P<path>.+)")


class LocalHub(ThreadingHTTPServer):
    """Serves repositories, each of some files; `failure` is an answer to everything instead."""

    def __init__(self, repositories: dict[str, dict[str, Path]], failure: tuple[int, str] | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.failure = failure
        self.files_sent: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def local_hub(
    repositories: dict[str, dict[str, Path]], failure: tuple[int, str] | None = None
) -> Iterator[LocalHub]:
    """Run a hub in a thread of this process."""
    with LocalHub(repositories, failure) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: LocalHub

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None: ...

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if self.server.failure is not None:
            return self._send(self.server.failure[0], b"", {"X-Error-Code": self.server.failure[1]})
        if match := _FILE.fullmatch(path):
            files = self.server.repositories.get(match["name"], {})
            if match["path"] in files:
                if with_body:
                    self.server.files_sent.append(match["path"])
                content = files[match["path"]].read_bytes()
                headers = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": COMMIT}
                return self._send(200, content if with_body else b"", headers, len(content))
        elif match := _TREE.fullmatch(path):
            files = self.server.repositories.get(match["name"], {})
            return self._send_json([_entry(name, path.read_bytes()) for name, path in files.items()])
        elif (match := _MODEL.fullmatch(path)) and match["name"] in self.server.repositories:
            files = self.server.repositories[match["name"]]
            siblings = [{"rfilename": name} for name in files]
            return self._send_json({"id": match["name"], "sha": COMMIT, "siblings": siblings})
        return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": _digest(content)}


def _digest(content: bytes) -> str:
    # As git names its blobs.
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
