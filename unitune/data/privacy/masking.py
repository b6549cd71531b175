"""Show a text without the secrets and the personal data in it: `masked`."""

from __future__ import annotations

from functools import lru_cache

from unitune.data.privacy.personal import find_personal_data
from unitune.data.privacy.secrets import find_secrets


@lru_cache(maxsize=1024)
def masked(text: str) -> str:
    """Return a text with the names of rules and kinds in place of secrets and personal data.

    Examples:
        >>> masked("keys: 'jane@firma.de', 'label'")
        "keys: '[EMAIL]', 'label'"
    """
    text = without_secrets(text)
    for datum in reversed(find_personal_data(text)):
        text = f"{text[: datum.start]}[{datum.kind}]{text[datum.end :]}"
    return text


def without_secrets(text: str) -> str:
    """Return a text with the names of rules in place of secrets."""
    for secret in reversed(find_secrets(text)):
        text = f"{text[: secret.start]}[{secret.rule}]{text[secret.end :]}"
    return text
