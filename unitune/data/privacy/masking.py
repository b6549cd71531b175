"""Mask secrets and personal data in a text."""

from __future__ import annotations

from functools import lru_cache

from unitune.data.privacy.personal import find_personal_data
from unitune.data.privacy.secrets import find_secrets


@lru_cache(maxsize=1024)
def masked(text: str) -> str:
    """Return a text with secrets and personal data replaced by the names of rules and kinds.

    Examples:
        >>> masked("keys: 'jane@firma.de', 'label'")
        "keys: '[EMAIL]', 'label'"
    """
    text = without_secrets(text)
    for datum in reversed(find_personal_data(text)):
        text = f"{text[: datum.start]}[{datum.kind}]{text[datum.end :]}"
    return text


def without_secrets(text: str) -> str:
    """Return a text with secrets replaced by the names of their rules."""
    for secret in reversed(find_secrets(text)):
        text = f"{text[: secret.start]}[{secret.rule}]{text[secret.end :]}"
    return text
