"""Proxies and certificates: both HTTP clients follow httpx's rules."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from unitune.backends.kit.connection import proxy_for, tls_context
from unitune.errors import UserError

PROXY = "http://proxy.example:3128"
TLS = ssl.create_default_context()
URLS = (
    "https://llm.corp.test/v1",
    "https://corp.test/v1",
    "https://notcorp.test",
    "https://llm.corp.test:8443/v1",
    "http://10.1.2.3:8000/v1",
    "http://127.0.0.1:8000/v1",
    "http://localhost:11434/v1",
    "http://[::1]:8000/v1",
    "http://x.test",
)
EXEMPT = (
    *("", "corp.test", ".corp.test", "*.corp.test", "*", " llm.corp.test , other", "LLM.CORP.TEST"),
    *(
        "llm.corp.test:8443",
        "llm.corp.test:443",
        "https://llm.corp.test",
        "https://llm.corp.test:443",
    ),
    *("http://llm.corp.test", "all://corp.test", "https://", "all://*.corp.test", ":8443"),
    *(
        "10.0.0.0/8",
        "10.1.2.3",
        "10.1.2.3:8000",
        "127.0.0.1:8000",
        "localhost,127.0.0.1",
        "localhost",
    ),
    *("::1", "orp.test", "://llm.corp.test", "x.test,,", "localhost:11434"),
)
PROXIES = (
    {"HTTPS_PROXY": PROXY},
    {"https_proxy": PROXY, "HTTPS_PROXY": "http://other.example:1"},
    {"HTTP_PROXY": PROXY},
    {"ALL_PROXY": PROXY},
    {"all_proxy": "proxy.example:3128"},
    {"HTTPS_PROXY": "proxy.example:3128", "ALL_PROXY": "http://other.example:1"},
    {"HTTPS_PROXY": "https://u:p%401@proxy.example:3128", "HTTP_PROXY": PROXY},
    {"HTTPS_PROXY": ""},
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def taken(client: httpx.Client, url: str) -> str | None:
    """The proxy that a client of httpx takes, with its user and password."""
    asked: Any = client  # httpx has no public way to ask
    pool = asked._transport_for_url(httpx.URL(url))._pool
    if (proxy := getattr(pool, "_proxy_url", None)) is None:
        return None
    signed = dict(pool._proxy_headers).get(b"Proxy-Authorization", b"")
    return f"{proxy.scheme.decode()}://{proxy.host.decode()}:{proxy.port}{signed.decode()}"


@pytest.mark.parametrize("exempt", EXEMPT)
def test_proxy_of_every_address_is_the_one_that_httpx_takes(
    monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    for proxies in PROXIES:
        with monkeypatch.context() as patch:
            patch.setenv("NO_PROXY", exempt)
            for name, value in proxies.items():
                patch.setenv(name, value)
            oracle = httpx.Client(verify=TLS)
            expected = {url: taken(oracle, url) for url in URLS}
            chosen = {url: proxy_for(url) for url in URLS}
        for url, proxy in chosen.items():
            ours = httpx.Client(verify=TLS, proxy=proxy) if proxy else None
            assert expected[url] == (taken(ours, url) if ours else None), (proxies, url)


def test_the_table_has_proxies_and_direct_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the comparison above would hold for a function that does nothing."""
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", "llm.corp.test:8443")
    assert [proxy_for(url) for url in URLS] == [PROXY] * 3 + [None] + [PROXY] * 5


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1", "socks5h://u:secret@h:1", "socks4://h:1"]
)
def test_a_socks_proxy_is_refused_with_its_variable_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str
) -> None:
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(UserError) as refused:
        proxy_for("https://llm.corp.test/v1")
    words = str(refused.value)
    assert f"{variable} names a SOCKS proxy" in words
    assert "add llm.corp.test to NO_PROXY" in words
    assert "secret" not in words
    monkeypatch.setenv("NO_PROXY", "llm.corp.test")
    assert proxy_for("https://llm.corp.test/v1") is None


@pytest.mark.parametrize("proxy", ["http://", "ftp://h:1", "http://[::1", "http://h:port"])
def test_what_is_no_proxy_is_refused(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UserError, match=r"HTTPS_PROXY names something else.*http://HOST:PORT"):
        proxy_for("https://llm.corp.test/v1")


@pytest.mark.parametrize("entry", ["[::1", "http://[", "fd00::/8"])
def test_an_entry_of_no_proxy_that_cannot_be_read_exempts_nothing(
    monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", f"{entry},corp.test")
    assert proxy_for("https://x.test") == PROXY
    assert proxy_for("https://corp.test") is None


def test_a_file_of_certificates_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").touch()
    for file in ("missing.pem", "empty.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / file))
        with pytest.raises(UserError, match=f"SSL_CERT_FILE is .*{file}"):
            tls_context()
