"""A package index on this machine, by the simple API."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Index:
    """What the index serves, and what was requested of it.

    Args:
        files: Content by file name.
        credentials: The Authorization header that it insists on.
        files_at: Address that listed files lie at; its own by default.
        redirect_to: Address that requests for files are redirected to, if any.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    credentials: str | None = None
    files_at: str = ""
    redirect_to: str | None = None
    address: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Authorization header of each request."""

    @property
    def downloads(self) -> int:
        """How often a file was requested."""
        return sum(path.startswith("/files/") for path, _ in self.requests)


class Handler(BaseHTTPRequestHandler):
    """Plays the index."""

    index: Index

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        """Answer a page, a redirect or a file."""
        index, name = self.index, self.path.rpartition("/")[2]
        index.requests.append((self.path, self.headers["Authorization"]))
        if index.credentials and self.headers["Authorization"] != index.credentials:
            self._send(401, b"", "text/plain", {"WWW-Authenticate": "Basic"})
        elif self.path == "/simple/tiny-model/":
            self._page()
        elif name not in index.files:
            self._send(404, b"not here", "text/plain")
        elif index.redirect_to is not None:
            self._send(302, b"", "text/plain", {"Location": f"{index.redirect_to}/files/{name}"})
        else:
            self._send(200, index.files[name], "application/octet-stream")

    def _page(self) -> None:
        files = [
            {
                "filename": name,
                "url": f"{self.index.files_at}/files/{name}",
                "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
            }
            for name, content in self.index.files.items()
        ]
        body = json.dumps({"meta": {"api-version": "1.0"}, "name": "tiny-model", "files": files})
        self._send(200, body.encode(), "application/vnd.pypi.simple.v1+json")

    def _send(
        self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve_index(index: Index) -> Iterator[Index]:
    """Serve an index until the block ends; its `address` is that of the simple API."""
    handler = type("IndexHandler", (Handler,), {"index": index})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        index.address = f"http://127.0.0.1:{server.server_port}/simple"
        yield index
        server.shutdown()
