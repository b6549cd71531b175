"""A secret is taken out of what others say; a stand-in of a few letters leaves it readable."""

from __future__ import annotations

import pytest

from unitune.redaction import redacted

SAID = "no such model exists for test, in the test-suite of contestants"


@pytest.mark.parametrize("secret", ["t", "test", "mock", None, ""])
def test_words_stay_readable_beside_a_stand_in(secret: str | None) -> None:
    assert SAID == redacted(SAID, [secret])


def test_a_secret_goes_wherever_it_stands() -> None:
    assert "key:***x and ***" == redacted("key:sk-12345678x and sk-12345678", ["sk-12345678"])


def test_a_short_one_goes_as_a_word_of_its_own() -> None:
    assert "models, *** and '***'" == redacted("models, model and 'model'", ["model"])


def test_the_longer_of_two_goes_first() -> None:
    assert "***" == redacted("sk-12345678-9", ["sk-12345678", "sk-12345678-9"])
