"""Choose the proxy and the trusted certificates of a connection, and bound the bodies of answers.

The rules for ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` are httpx's, which
vendors' SDKs follow. ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` replaces the default certificates, which
are certifi's and the system's.

99 KiB of gzip may hold 100 MiB, so `Body` never decompresses more than allowed. `GZIP_ONLY`
requests the only supported compression; answers in another are refused. Files written to disk as
they arrive are not bounded here.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from urllib.request import getproxies

import httpx

from unitune.errors import UserError
from unitune.files.system import after_fork

CERTIFICATES = "SSL_CERT_FILE"


def proxy_for(url: str) -> str | None:
    """Return the proxy for an address; None for a direct connection.

    Raises:
        UserError: The environment names a SOCKS proxy, or something that is not a proxy.

    Source: httpx 0.28.1, ``_utils.get_environment_proxies`` and ``_utils.URLPattern``.
    """
    proxies, address = getproxies(), httpx.URL(url)
    if any(_exempts(entry.strip(), address) for entry in proxies.get("no", "").split(",")):
        return None
    scheme = next((name for name in (address.scheme, "all") if proxies.get(name)), None)
    if scheme is None:
        return None
    proxy = proxies[scheme] if "://" in proxies[scheme] else f"http://{proxies[scheme]}"
    with suppress(httpx.InvalidURL):
        if httpx.URL(proxy).scheme in ("http", "https") and httpx.URL(proxy).host:
            return proxy
    named = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    variable = next((name for name in named if os.environ.get(name)), "a setting of your system")
    what = "a SOCKS proxy" if proxy.startswith("socks") else "something else"
    raise UserError(
        f"{variable} names {what}, but unitune supports only HTTP proxies. Set it to one "
        f"(http://HOST:PORT), or add {address.host} to NO_PROXY to connect without a proxy."
    )


def _exempts(entry: str, address: httpx.URL) -> bool:
    if entry in ("", "*"):
        return entry == "*"
    pattern = entry if "://" in entry else f"all://{_host_pattern(entry)}"
    try:
        named = httpx.URL(pattern)
    except httpx.InvalidURL:
        return False
    if named.scheme not in ("", "all", address.scheme) or named.port not in (None, address.port):
        return False
    host = named.host
    if host.startswith("*."):
        return len(address.host) >= len(host) and address.host.endswith(host[1:])
    if host.startswith("*"):
        return host == "*" or f".{address.host}".endswith(f".{host[1:]}")
    return host in ("", address.host)


def _host_pattern(entry: str) -> str:
    """Return an entry as httpx reads it: a name also exempts its subdomains."""
    with suppress(ValueError):
        version = ipaddress.ip_address(entry.partition("/")[0]).version
        return entry if version == 4 else f"[{entry}]"
    return entry if entry.lower() == "localhost" else f"*{entry}"


def http_client(url: str) -> httpx.Client:
    """Return the client for an address, which keeps connections and follows no redirects."""
    return _client(proxy_for(url), tls_context())


@lru_cache(maxsize=8)
def _client(proxy: str | None, context: ssl.SSLContext) -> httpx.Client:
    secure = proxy is not None and proxy.startswith("https:")
    through = httpx.Proxy(proxy, ssl_context=context if secure else None) if proxy else None
    transport = httpx.HTTPTransport(verify=context, proxy=through)
    return httpx.Client(follow_redirects=False, transport=transport)


after_fork(_client.cache_clear)


def tls_context() -> ssl.SSLContext:
    """Return the trusted certificates; raise `UserError` if they cannot be read."""
    return _context(os.environ.get(CERTIFICATES), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=4)
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    try:
        context = httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError is one
        variable = CERTIFICATES if file else "SSL_CERT_DIR"
        raise UserError(
            f"{variable} is {file or folder!r}, which is not a readable file of certificates "
            f"({error}). Set it to a PEM file."
        ) from error
    if not file and not folder:
        context.load_default_certs()
    return context


def certificate_file(*own: str) -> str | None:
    """Return ``SSL_CERT_FILE`` for a library that reads its own variables, unless one is set."""
    return None if any(map(os.environ.get, own)) else os.environ.get(CERTIFICATES) or None


def certificate_advice(reason: str) -> str:
    """Return advice for a failed TLS handshake; empty for another failure."""
    if "CERTIFICATE_VERIFY_FAILED" not in reason:
        return ""
    return (
        f"If your network uses its own certificate authority, set {CERTIFICATES} to a PEM file "
        "with its certificate. Also set AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE if you use them."
    )


# Bytes of an answer: 128,000 tokens, the longest that models give, are about 0.5 MiB
LARGEST_ANSWER = 16 << 20
# Bytes of a list or of a batch's results; OpenAI accepts 200 MB of requests in one batch
LARGEST_FILE = 1 << 30
# Ratio of decompressed to compressed bytes, beyond `LARGEST_ANSWER`: similar lines of JSON reach
# about 20, and gzip itself 1,032
MOST_RATIO = 100
PIECE = 1 << 20  # bytes decompressed at a time
GZIP_ONLY = {"Accept-Encoding": "gzip"}
_PLAIN = ("", "identity")
_GZIP = ("gzip", "x-gzip")
_GZIP_BITS = 31  # largest window, with gzip's header and trailer (zlib's manual, inflateInit2)


class BodyError(ValueError):
    """A body that is too long or cannot be decompressed."""


class Body:
    """A body that arrives in pieces, of at most `most` bytes when decompressed."""

    def __init__(self, encoding: str | None, most: int = LARGEST_ANSWER) -> None:
        encoding = (encoding or "").strip().lower()
        if encoding not in (*_PLAIN, *_GZIP):
            raise BodyError(f"it is compressed as {encoding[:30]!r}, but only gzip was requested")
        self._is_compressed = encoding in _GZIP
        self._decompressor = zlib.decompressobj(_GZIP_BITS)
        self._ended = True
        self._most = most
        self._came = self._size = 0

    def decompressed(self, data: bytes) -> Iterator[bytes]:
        """Decompress the next piece into pieces of at most `PIECE` bytes, or raise `BodyError`."""
        self._came += len(data)
        if not self._is_compressed:
            yield self._counted(data)
            return
        while data:
            try:
                piece = self._decompressor.decompress(data, PIECE)
            except zlib.error as error:
                raise BodyError(f"its gzip is damaged: {error}") from error
            yield self._counted(piece)
            data = self._decompressor.unconsumed_tail
            self._ended = self._decompressor.eof
            if self._ended:
                data = self._decompressor.unused_data
                self._decompressor = zlib.decompressobj(_GZIP_BITS)

    def end(self) -> None:
        """Mark the end of the body; raise `BodyError` if it is incomplete."""
        if not self._ended:
            raise BodyError("its gzip ends in the middle")

    def _counted(self, piece: bytes) -> bytes:
        self._size += len(piece)
        if self._size > self._most:
            raise BodyError(f"it is longer than {self._most:,} bytes")
        if self._size > LARGEST_ANSWER and self._size > MOST_RATIO * self._came:
            raise BodyError(
                f"{self._came:,} bytes decompress to more than {MOST_RATIO} times as many"
            )
        return piece


def unpacked(pieces: Iterable[bytes], encoding: str | None, most: int) -> Iterator[bytes]:
    """Decompress a whole body of at most `most` bytes, or raise `BodyError`."""
    body = Body(encoding, most)
    for piece in pieces:
        yield from body.decompressed(piece)
    body.end()
