"""The signature of a folder: every file in it by its hash, signed with a key of the user's own.

What signs and verifies is `model-signing`, of the OpenSSF and Sigstore: an in-toto statement in a
Sigstore bundle, https://github.com/sigstore/model-transparency (1.1, 2026-11-28). A key on an
elliptic curve is used, so that nothing is sent anywhere.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, cast

from unitune.errors import MissingExtra, UserError
from unitune.workspace.install import install_command

SIGNATURE = "model.sig"


def check_key(key: Path) -> None:
    """Refuse a key that cannot sign, before anything is written.

    Raises:
        MissingExtra: `model-signing` is not installed.
        UserError: The file is no such key.
        OSError: It cannot be read.
    """
    _signer(key)


def sign(folder: Path, key: Path) -> Path:
    """Sign all files of a folder, and return the signature, which stands among them.

    Raises:
        UserError: There is a symbolic link among them; or as `check_key`.
    """
    signature = folder / SIGNATURE
    signer, hashing = _signer(key), cast("Any", import_module("model_signing.hashing"))
    content = hashing.Config().set_ignored_paths(paths=[SIGNATURE])
    try:
        signer.set_hashing_config(content).sign(folder, signature)
    except ValueError as error:
        raise UserError(f"{folder} cannot be signed: {error}") from error
    return signature


def _signer(key: Path) -> Any:
    try:
        package = cast("Any", import_module("model_signing.signing"))  # an extra
    except ModuleNotFoundError as error:
        command = install_command("sign")
        raise MissingExtra(f"--sign needs packages that are not installed: {command}") from error
    key.read_bytes()  # what cannot be read is said as for any other file
    try:
        return package.Config().use_elliptic_key_signer(private_key=key)
    except (ValueError, TypeError, AttributeError) as error:  # encrypted; not on a curve
        raise UserError(
            f"{key} cannot sign: it is no private key in PEM on the curve P-256, P-384 or P-521, "
            "or has a password. Make one: openssl ecparam -name prime256v1 -genkey -noout -out "
            "signing.pem"
        ) from error
