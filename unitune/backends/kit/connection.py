"""Choose the proxy and the trusted certificates of a connection, for httpx and aiohttp.

The rules for ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` are httpx's, which
vendors' SDKs follow. ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` replaces the default certificates, which
are certifi's and the system's.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from contextlib import suppress
from functools import lru_cache
from urllib.request import getproxies

import httpx

from unitune.errors import UserError

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


os.register_at_fork(after_in_child=_client.cache_clear)


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
