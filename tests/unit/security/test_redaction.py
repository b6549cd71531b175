"""A secret is taken out of what others say; a stand-in of a few letters leaves it readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from unitune.security.redaction import redacted

SAID = "no such model exists for test, in the test-suite of contestants"


@pytest.mark.parametrize("secret", ["t", "test", "mock", None, ""])
def test_words_stay_readable_beside_a_stand_in(secret: str | None) -> None:
    assert redacted(SAID, [secret]) == SAID


def test_a_secret_goes_wherever_it_stands() -> None:
    assert redacted("key:sk-12345678x and sk-12345678", ["sk-12345678"]) == "key:***x and ***"


def test_a_short_one_goes_as_a_word_of_its_own() -> None:
    assert redacted("models, model and 'model'", ["model"]) == "models, *** and '***'"


def test_the_longer_of_two_goes_first() -> None:
    assert redacted("sk-12345678-9", ["sk-12345678", "sk-12345678-9"]) == "***"


KEY = "sk-12345678/+"


@pytest.mark.parametrize("form", [KEY, "sk-12345678%2F%2B", "c2stMTIzNDU2NzgvKw=="])
def test_a_secret_goes_however_it_is_repeated(form: str) -> None:
    """Known answers: RFC 3986 percent-encoding and RFC 4648 base64, by `jq @uri` and `base64`."""
    assert form not in redacted(f"you sent {form}", [KEY])
    assert redacted(f"you sent {form}", [KEY]).startswith("you sent ***")


def test_what_is_cut_is_cut_after_the_secret_is_gone() -> None:
    assert redacted("it is sk-12345678, and so on", ["sk-12345678"], 12) == "it is ***, a"


def test_secrets_of_the_environment_go_by_their_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("DB_PASSWORD_2", "hush-hush-hush")
    monkeypatch.setenv("KEYBOARD", "of-no-interest")
    monkeypatch.setenv("SHORT_TOKEN", "tests")
    monkeypatch.setenv("CA_KEY", str(tmp_path))
    words = f"of-no-interest tests {tmp_path}"
    assert redacted(f"sk-of-the-environment hush-hush-hush {words}") == f"*** *** {words}"


def test_a_secret_longer_than_a_file_name_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of GitHub Actions and keys of service accounts have thousands of characters."""
    token = "long-and-secret" * 300
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", token)
    assert redacted(f"{token} was refused") == "*** was refused"


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxys_password_goes_in_its_basic_form_too(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Known answer: RFC 7617, section 2: user Aladdin, password "open sesame"."""
    monkeypatch.setenv("https_proxy", f"{scheme}Aladdin:open%20sesame@proxy.example:3128")
    said = "407: open sesame, open%20sesame, Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    told = redacted(said)
    assert [form for form in ("sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ") if form in told] == []
