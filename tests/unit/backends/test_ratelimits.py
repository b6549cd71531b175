"""What vendors say of their limits, read as documented."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitune.backends.retry import (
    LONGEST_BELIEVED_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    parse_retry_after,
    rate_limit_delay,
    retry_delay,
)
from unitune.errors import BackendError


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "17"}, 17.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after": "99999999999"}, None),
        ({"retry-after": "1e308"}, None),
        ({"retry-after-ms": "1e308"}, None),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00"}, None),
        ({"retry-after": f"Wed, {'9' * 30} Oct 2015 07:28:00 GMT"}, None),
    ],
)
def test_asked_pause_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds == parse_retry_after(headers)


@given(st.text() | st.floats().map(str) | st.datetimes().map(format_datetime))
def test_whatever_a_vendor_writes_a_pause_is_none_or_no_longer_than_a_month(text: str) -> None:
    for pause in (
        parse_retry_after({"retry-after": text}),
        parse_retry_after({"retry-after-ms": text}),
        rate_limit_delay(openai("requests", "60", "0", text)),
        rate_limit_delay(openai("requests", text, "0", "1s")),
    ):
        assert pause is None or 0 <= pause <= LONGEST_BELIEVED_SECONDS


@given(st.none() | st.floats())
def test_whatever_others_have_read_nobody_waits_longer_than_a_minute(seconds: float | None) -> None:
    told = BackendError("slow down", status=429, retry_after=seconds)
    assert 0 <= retry_delay(told, 5.0) <= MAX_RETRY_AFTER_SECONDS


def test_asked_pause_may_be_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert pytest.approx(parse_retry_after({"retry-after": format_datetime(later)}), abs=2) == 90
    assert parse_retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


def openai(kind: str, limit: str, remaining: str, reset: str) -> dict[str, str]:
    told = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{name}-{kind}": text for name, text in told.items()}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (openai("requests", "60", "59", "1s"), None),
        (openai("requests", "60", "0", "1m0s"), 1.0),
        (openai("requests", "5000", "0", "60s"), 0.6),
        (openai("tokens", "160000", "0", "6m0s"), 3.6),
        (openai("requests", "50", "0", "100ms"), 0.002),
        (openai("tokens", "-1", "-1", "0"), None),
        (openai("requests", "60", "0", "a while"), None),
        (openai("requests", "60", "0", "1m and more"), None),
        ({"x-ratelimit-limit": "10", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "5"}, 0.5),
    ],
)
def test_an_empty_bucket_is_waited_for_as_long_as_one_request_takes(
    headers: dict[str, str], seconds: float | None
) -> None:
    expected = None if seconds is None else pytest.approx(seconds)
    assert expected == rate_limit_delay(headers)


def test_the_emptiest_bucket_decides() -> None:
    headers = openai("requests", "60", "0", "60s") | openai("tokens", "100", "0", "1000s")
    assert pytest.approx(rate_limit_delay(headers)) == 10


def test_anthropic_gives_a_time() -> None:
    full = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    told = {"limit": "50", "remaining": "0", "reset": full.replace("+00:00", "Z")}
    headers = {f"anthropic-ratelimit-requests-{name}": text for name, text in told.items()}
    assert pytest.approx(rate_limit_delay(headers), abs=0.05) == 0.6


@given(st.dictionaries(st.sampled_from(sorted(openai("requests", "", "", ""))), st.text()))
def test_no_header_whatever_it_says_is_an_error(headers: dict[str, str]) -> None:
    assert (rate_limit_delay(headers) or 0) >= 0
    assert (parse_retry_after({"retry-after": "".join(headers.values())}) or 0) >= 0
