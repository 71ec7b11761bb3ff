"""A hub on this computer: the few requests that a download asks, with ranges, faults on command, and a log."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Repositories by name; each a dictionary of file contents."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.large = 1000  # files of this size or more have a SHA-256, smaller ones a git id  [B]
        self.sent: list[tuple[str, str]] = []  # file, range asked for
        self.damaged: set[str] = set()  # files that arrive with one byte changed
        self.ignores_ranges = False
        self.answers_with: tuple[int, bytes] | None = None  # to every request
        self.address = ""

    def listing(self, repo: str) -> bytes:
        """What the hub says a repository holds."""
        siblings = []
        for name, content in self.repos[repo].items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": blob}
            if len(content) >= self.large:
                entry["lfs"] = {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 134,
                }
            siblings.append(entry)
        return json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Runs a hub on a free port."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if hub.answers_with:
                self._answer(*hub.answers_with)
            elif path.startswith("/api/models/"):
                repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
                if repo not in hub.repos:
                    self._refuse("RepoNotFound", "no such repository")
                elif revision not in ("", "main"):
                    self._answer(
                        404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no such revision"}
                    )
                else:
                    self._answer(200, hub.listing(repo))
            else:
                repo, kind, rest = path.removeprefix("/").partition("/resolve/")
                if not kind:
                    repo, _, rest = path.removeprefix("/cdn/").partition("/at/")
                content = hub.repos.get(repo, {}).get(rest.partition("/")[2])
                if content is None:
                    self._answer(404, b"")  # the library asks for more than files
                elif kind and len(content) >= hub.large:
                    # large files are elsewhere, as on the real hub
                    self._answer(302, b"", {"Location": f"{hub.address}/cdn/{repo}/at/{rest}"})
                else:
                    self._file(content, rest)

        def _file(self, content: bytes, rest: str) -> None:
            revision, _, name = rest.partition("/")
            asked = self.headers.get("Range", "")
            hub.sent.append((name, asked))
            if revision != COMMIT:
                self._answer(404, b"")
                return
            if name in hub.damaged:
                content = content[:-1] + bytes([content[-1] ^ 1])
            if asked and not hub.ignores_ranges:
                begin = int(asked.removeprefix("bytes=").partition("-")[0])
                found = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
                self._answer(206, content[begin:], found)
            else:
                self._answer(200, content)

        def _refuse(self, code: str, message: str) -> None:
            self._answer(404, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

        def _answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # joined when the server closes: none is left behind
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
