"""State a model's origin as an in-toto statement with SLSA provenance, and sign its folder.

The subjects are the model's files or, at a vendor, the model's id. Backend options may name
accounts, so they appear only in the training's fingerprint.

Source: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://slsa.dev/spec/v1.1/provenance (2026-11-28); for the signature `model-signing` 1.1,
https://github.com/sigstore/model-transparency (2026-11-28).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from unitune._version import __version__
from unitune.card.facts import CardFacts, digest_of
from unitune.errors import MissingExtra, UserError
from unitune.evaluate.history import history_folder
from unitune.evaluate.result_files import VERDICT
from unitune.files.filesystem import sha256
from unitune.workspace.install import install_command

SIGNATURE = "model.sig"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
UTC_TIME = "%Y-%m-%dT%H:%M:%SZ"
# For trainings, `externalParameters` are the requested settings and `internalParameters` the
# resolved `auto` values. The type is a URN because there is no web page for it.
BUILD_TYPE = "urn:unitune:training:v1"


def statement(facts: CardFacts, files: Mapping[str, Path], card: Mapping[str, str]) -> str:
    """Return the provenance of a model's files and the card's files as JSON."""
    run, job = facts.run, facts.run.job
    digests = [(file.name, digest_of(file)) for file in facts.rows]
    rows = [_known({"name": name, "digest": sha and {"sha256": sha}}) for name, sha in digests]
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
        "startedOn": run.created.strftime(UTC_TIME),
        "finishedOn": facts.finished and facts.finished.strftime(UTC_TIME),
    }
    byproducts = [
        {"name": name, "digest": {"sha256": hashlib.sha256(text.encode()).hexdigest()}}
        for name, text in card.items()
    ]
    written = {
        "_type": STATEMENT,
        "subject": list(_subjects(facts, files)),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"job": _known(parameters)},
                "internalParameters": {"settings": facts.trained.settings},
                "resolvedDependencies": [_base(facts), *rows],
            },
            "runDetails": {
                "builder": {
                    "id": f"urn:unitune:backend:{run.backend_name}",
                    "version": _known(
                        {
                            "unitune": facts.trained.unitune,
                            "unitune models card": __version__,
                        }
                    ),
                },
                "metadata": _known(metadata),
                "byproducts": [*_verdict(facts), *byproducts],
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
            "annotations": {"note": "The files are not available; the digest is of the name."},
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


def _verdict(facts: CardFacts) -> Iterator[dict[str, Any]]:
    if facts.comparison and facts.comparison.id:
        file = history_folder(facts.comparison.id) / VERDICT
        annotations = {"comparison": facts.comparison.id, "verdict": facts.comparison.verdict}
        yield {"name": VERDICT, "digest": {"sha256": sha256(file)}, "annotations": annotations}


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def sign(folder: Path, signer: Any) -> str:
    """Sign all files of a folder, without links, and return the signature's name."""
    hashing = cast("Any", import_module("model_signing.hashing"))
    content = hashing.Config().set_ignored_paths(paths=[SIGNATURE])
    try:
        signer.set_hashing_config(content).sign(folder, folder / SIGNATURE)
    except ValueError as error:
        raise UserError(f"{folder} cannot be signed: {error}") from error
    return SIGNATURE


def signer_of(key: Path) -> Any:
    """Return a signer for a key; raises `MissingExtra`, `UserError` or `OSError`."""
    try:
        package = cast("Any", import_module("model_signing.signing"))  # an extra
    except ModuleNotFoundError as error:
        command = install_command("sign")
        raise MissingExtra(f"--sign needs packages that are not installed: {command}") from error
    key.read_bytes()  # an unreadable file raises the usual error
    try:
        return package.Config().use_elliptic_key_signer(private_key=key)
    except (
        ValueError,
        TypeError,
        AttributeError,
    ) as error:  # encrypted or not an elliptic-curve key
        raise UserError(
            f"{key} cannot sign: it is not a PEM private key on the curve P-256, P-384 or P-521, "
            "or has a password. Create one: openssl ecparam -name prime256v1 -genkey -noout -out "
            "signing.pem"
        ) from error
