"""Addresses: what is one, how it is shown without a secret, and which have one origin."""

from __future__ import annotations

import pytest

from unitune.security.addresses import NotAnAddress, as_origin, checked, shown


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        # RFC 6454, section 4 and 6.2: lower case, the scheme's usual port left out.
        ("http://example.com/", "http://example.com"),
        ("http://EXAMPLE.com:80/path/to", "http://example.com"),
        ("HTTPS://example.com:443", "https://example.com"),
        ("https://example.com:0443", "https://example.com"),
        ("https://example.com:8443/v1", "https://example.com:8443"),
        ("http://example.com:443", "http://example.com:443"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
        ("http://my_host:8000/v1", "http://my_host:8000"),
    ],
)
def test_an_origin_is_scheme_host_and_port(text: str, origin: str) -> None:
    assert origin == as_origin(text)


def test_hosts_schemes_and_ports_that_differ_are_different_origins() -> None:
    texts = ("https://a-b.com", "https://a.b.com", "http://a.b.com", "https://a.b.com:8443")
    assert len({as_origin(text) for text in texts}) == 4


@pytest.mark.parametrize(
    "text",
    [
        "http://user:PW-SECRET@example.com/v1",
        "http://PW-SECRET@example.com",
        "http://example.com/v1?key=PW-SECRET",
        "http://example.com/v1#PW-SECRET",
        "http://example.com?PW-SECRET",
        "user:PW-SECRET@example.com/v1",
        "//user:PW-SECRET@example.com/v1",
        "http:/user:PW-SECRET@example.com/v1",
        "http:user:PW-SECRET@example.com",
        "http://user:PW-SECRET@[example.com/v1",
        "http://user:PW/SECRET@example.com/v1",
        "http://user:PW?SECRET@example.com/v1",
    ],
)
def test_an_address_with_a_secret_is_refused_in_words_without_it(text: str) -> None:
    with pytest.raises(NotAnAddress) as refused:
        checked(text)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/v1",
        "ftp://example.com",
        "http://",
        "http:///v1",
        "http://exam ple.com",
        "http://exam\nple.com",
        "http://example.com\\.other.com/",
        "http://example.com/\\other.com",
        "http://ex%61mple.com",
        "http://exämple.com",
        "http://ⓔxample.com",
        "http://\u212aeys.example.com",
        "http://example.com:port",
        "http://example.com:1234567",
        "http://example.com/a b",
        " http://example.com",
        "http://example.com\n",
        "http://-example.com",
        "http://[::1",
    ],
)
def test_what_two_readers_may_read_differently_is_no_address(text: str) -> None:
    with pytest.raises(NotAnAddress, match="is not an address"):
        checked(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://u:p@example.com:8/v1/x?key=1#2", "https://example.com:8/v1/x"),
        ("https://example.com/v1", "https://example.com/v1"),
        ("https://example.com/~u@work", "https://example.com/~u@work"),
    ],
)
def test_an_address_is_shown_without_user_query_and_fragment(text: str, told: str) -> None:
    assert told == shown(text)
