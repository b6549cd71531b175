"""A package index on this machine, with the faults that real ones have."""

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
    """What the index serves, and what it was asked.

    Args:
        files: Content by file name.
        form: Which form of the simple API it speaks.
        cuts: How many downloads end in the middle.
        ranges: Whether it can go on in the middle of a file.
        redirects: Whether file addresses lead elsewhere first.
        listed_sha256: A hash to list instead of the true one.
        credentials: The Authorization header that it insists on.
        files_at: Address that listed files lie at; its own by default.
        mirror: Address that redirects lead to; its own by default.
        sent: The Authorization header of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    form: str = "json"
    cuts: int = 0
    ranges: bool = True
    redirects: bool = False
    listed_sha256: str | None = None
    credentials: str | None = None
    files_at: str = ""
    mirror: str = ""
    sent: list[str | None] = field(default_factory=list)
    address: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range header of each request."""


class Handler(BaseHTTPRequestHandler):
    """Plays the index."""

    index: Index

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        """Answer a page, a redirect or a file."""
        index = self.index
        index.requests.append((self.path, self.headers["Range"]))
        index.sent.append(self.headers["Authorization"])
        name = self.path.rpartition("/")[2]
        if index.credentials and self.headers["Authorization"] != index.credentials:
            self._send(401, b"", "text/plain")
        elif self.path == "/simple/tiny-model/":
            self._page()
        elif name not in index.files:
            self._send(404, b"not here", "text/plain")
        elif index.redirects and self.path.startswith("/files/"):
            self.send_response(302)
            self.send_header("Location", f"{index.mirror}/mirror/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._file(index.files[name])

    def _page(self) -> None:
        files = {
            name: self.index.listed_sha256 or hashlib.sha256(content).hexdigest()
            for name, content in self.index.files.items()
        }
        if self.index.form == "json":
            rows = [
                {
                    "filename": name,
                    "url": f"{self.index.files_at}/files/{name}",
                    "hashes": {"sha256": value},
                }
                for name, value in files.items()
            ]
            body = json.dumps({"meta": {"api-version": "1.0"}, "name": "tiny-model", "files": rows})
            self._send(200, body.encode(), "application/vnd.pypi.simple.v1+json")
        else:
            rows_html = "".join(
                f'<a href="../../files/{name}#sha256={value}" data-yanked="">{name}</a><br/>\n'
                for name, value in files.items()
            )
            self._send(200, f"<!DOCTYPE html><body>{rows_html}</body>".encode(), "text/html")

    def _file(self, content: bytes) -> None:
        asked = self.headers["Range"]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.index.ranges else 0
        if start >= len(content):
            self._send(416, b"", "text/plain")
            return
        rest = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.index.cuts:
            self.index.cuts -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)
        self.close_connection = True

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
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
