"""Sign in to Azure with Microsoft Entra ID, by the package azure-identity."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from unitune.backends.kit.connection import certificate_advice, certificate_file
from unitune.backends.kit.errors import Vendor
from unitune.errors import UserError

ENTRA_ADVICE = (
    "Or install azure-identity (unitune's extra `azure`) and sign in with `az login` or a managed "
    "identity."
)


def entra_token(scope: str) -> Callable[[], str] | None:
    """Return a function that returns a valid token for a scope; None without azure-identity."""
    try:
        identity = importlib.import_module("azure.identity")
    except ModuleNotFoundError:
        return None

    def token() -> str:
        try:
            return _entra_credential(identity).get_token(scope).token
        except Exception as error:  # its ways to sign in raise many kinds
            reason = Vendor("Entra ID").safe(str(error))
            words = f"Entra ID did not return a token: {reason}. Sign in with `az login`, or set "
            words += "variables of azure-identity such as AZURE_CLIENT_ID and AZURE_TENANT_ID. "
            raise UserError(f"{words}{certificate_advice(reason)}".rstrip()) from error

    return token


@cache
def _entra_credential(identity: Any) -> Any:
    trusted = certificate_file("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return identity.DefaultAzureCredential(**({"connection_verify": trusted} if trusted else {}))
