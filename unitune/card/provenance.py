"""Where a model comes from, as an in-toto statement with SLSA's provenance; the folder's signature.

The subjects are the model's files by their SHA-256. A vendor keeps the files of its models, so its
subject is the model's id there, and the digest is said to be that of the id. Options of a backend,
which may name accounts, are in the training's fingerprint alone.

Source: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://slsa.dev/spec/v1.1/provenance (2026-11-28).

All files of the folder by their hashes are signed by `model-signing`, of the OpenSSF and Sigstore:
an in-toto statement in a Sigstore bundle, https://github.com/sigstore/model-transparency (1.1,
2026-11-28). A key on an elliptic curve is used, so that nothing is sent anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import unitune
from unitune.card.facts import CardFacts, RowFile, digest_of
from unitune.errors import MissingExtra, UserError
from unitune.evaluate.history import history_folder
from unitune.evaluate.result_files import VERDICT
from unitune.workspace.filesystem import sha256
from unitune.workspace.install import install_command

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:unitune:training:v1"
"""Of trainings: `externalParameters` say what was asked for, `internalParameters` what `auto` came
to. A urn, as no page of ours could be read there."""


def statement(facts: CardFacts, files: Mapping[str, Path], card: Mapping[str, str]) -> str:
    """Return the statement as JSON.

    Args:
        facts: What is known of the run.
        files: The model's files by their names; none: a vendor keeps them.
        card: Contents of the other files of the card, by name.
    """
    run, job = facts.run, facts.run.job
    parameters = {
        "model": facts.base.name,
        "backend": job.backend,
        "method": job.method,
        "tuning": job.tuning.model_dump(mode="json", exclude_defaults=True),
        "training_fingerprint": run.fingerprint,
        "start": run.start and run.start.identity,
    }
    metadata = {
        "invocationId": run.launch_key,
        "startedOn": _time(run.created),
        "finishedOn": facts.finished and _time(facts.finished),
    }
    written = {
        "_type": STATEMENT,
        "subject": list(_subjects(facts, files)),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"job": _known(parameters)},
                "internalParameters": {"settings": facts.trained.settings},
                "resolvedDependencies": [_base(facts), *map(_rows, facts.rows)],
            },
            "runDetails": {
                "builder": {
                    "id": f"urn:unitune:backend:{run.backend_name}",
                    "version": _known(
                        {"unitune": facts.trained.unitune, "unitune card": unitune.__version__}
                    ),
                },
                "metadata": _known(metadata),
                "byproducts": [*_verdict(facts), *_card_files(card)],
            },
        },
    }
    return json.dumps(written, indent=2, ensure_ascii=False) + "\n"


def _subjects(facts: CardFacts, files: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    for name, path in files.items():
        yield {"name": name, "digest": {"sha256": sha256(path)}}
    if not files:
        model = facts.model
        id_ = f"{model.backend}:{model.name if not facts.is_own else facts.run.id}"
        yield {
            "name": id_,
            "digest": {"sha256_of_name": hashlib.sha256(id_.encode()).hexdigest()},
            "annotations": {"note": "The files are not here; the digest is that of the name."},
        }


def _base(facts: CardFacts) -> dict[str, Any]:
    hub_name, fingerprint = facts.base.hub_name, facts.model.base_fingerprint
    return _known(
        {
            "name": facts.base.name,
            "uri": f"https://huggingface.co/{hub_name}"
            if hub_name
            else f"urn:unitune:base:{quote(facts.base.name, safe='')}",
            "digest": {"unitune_fingerprint": fingerprint} if fingerprint else None,
        }
    )


def _rows(file: RowFile) -> dict[str, Any]:
    digest = digest_of(file)
    return _known({"name": file.name, "digest": digest and {"sha256": digest}})


def _verdict(facts: CardFacts) -> Iterator[dict[str, Any]]:
    if facts.comparison and facts.comparison.id:
        file = history_folder(facts.comparison.id) / VERDICT
        annotations = {"comparison": facts.comparison.id, "verdict": facts.comparison.verdict}
        yield {"name": VERDICT, "digest": {"sha256": sha256(file)}, "annotations": annotations}


def _card_files(card: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for name, text in card.items():
        yield {"name": name, "digest": {"sha256": hashlib.sha256(text.encode()).hexdigest()}}


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values without those that are not known."""
    return {name: value for name, value in values.items() if value is not None}


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
