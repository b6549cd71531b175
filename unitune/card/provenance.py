"""State a model's origin, sign its folder, and describe the training rows.

The origin is an in-toto statement with SLSA provenance. The subjects are the model's files or, at a
vendor, the model's id. Backend options may name accounts, so they appear only in the training's
fingerprint. The rows, which are not published, are described in Croissant 1.1.

Source: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://slsa.dev/spec/v1.1/provenance (2026-11-28); for Croissant
https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html (2026-11-28); for the signature
`model-signing` 1.1, https://github.com/sigstore/model-transparency (2026-11-28).
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
from unitune.card.facts import CardFacts, RowFile, digest_of
from unitune.errors import MissingExtra, UserError
from unitune.evaluate.documents.history import VERDICT, history_folder
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


CROISSANT = "http://mlcommons.org/croissant/1.1"
TERMS = """arrayShape citeAs column containedIn equivalentProperty extract field fileProperty
fileObject fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet
references regex repeated replace samplingRate separator source subField transform"""
CONTEXT: dict[str, Any] = {  # as in its appendix 1
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in TERMS.split()},
}
# Types of values in a row
TYPES = {str: "sc:Text", bool: "sc:Boolean", int: "sc:Float", float: "sc:Float"}
# Keys of canonical rows with messages, and the path of a message's part in their value; a list has
# it in each item, as in Hugging Face's files
MESSAGES = {
    "messages": "{part}",
    "input": "messages[*].{part}",
    "preferred_output": "{part}",
    "non_preferred_output": "{part}",
}
MESSAGE_PARTS = ("role", "content")


def croissant(facts: CardFacts) -> str:
    """Return the description of a run's rows as JSON-LD."""
    about = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CROISSANT,
        "name": f"{facts.run.job.name}-rows",
        "description": (
            f"Training rows of run {facts.run.id}, which tuned {facts.base.name}, from "
            f"{', '.join(facts.data_names) or 'files that the job does not name'}. The rows are "
            "not published with this description."
        ),
        "dateCreated": f"{facts.run.created:%Y-%m-%d}",
        "prov:wasDerivedFrom": [
            {"@id": f"https://huggingface.co/datasets/{name}"} for name in facts.hub_data
        ],
        "distribution": list(map(_file, facts.rows)),
        "recordSet": [_records(file) for file in facts.rows if file.path],
    }
    known = {key: value for key, value in about.items() if value}
    return json.dumps(known, indent=2, ensure_ascii=False) + "\n"


def _file(file: RowFile) -> dict[str, Any]:
    about = {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "contentUrl": file.name,
        "encodingFormat": "application/jsonlines",
    }
    if file.path is None:
        return about | {"sha256": digest_of(file)}
    return about | {"contentSize": f"{file.path.stat().st_size} B", "sha256": sha256(file.path)}


def _records(file: RowFile) -> dict[str, Any]:
    name, columns = Path(file.name).stem, dict[str, Any]()  # columns with a sample value
    for row in rows_of(file):
        columns = row | columns
    described = {key: value for key, value in columns.items() if type(value) in TYPES}
    others = ", ".join(sorted(columns.keys() - described.keys() - MESSAGES.keys()))
    about = {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": others
        and f"Other columns, with values other than text and numbers: {others}.",
        "field": [
            *(_messages(file, f"{name}/{key}", key) for key in MESSAGES if key in columns),
            *(_value(file, f"{name}/{key}", key, TYPES[type(described[key])]) for key in described),
        ],
    }
    return {key: value for key, value in about.items() if value}


def _messages(file: RowFile, id_: str, key: str) -> dict[str, Any]:
    parts = [
        _value(file, f"{id_}/{part}", key, path=MESSAGES[key].format(part=part)) | {"name": part}
        for part in MESSAGE_PARTS
    ]
    return {"@type": "cr:Field", "@id": id_, "name": key, "subField": parts}


def _value(
    file: RowFile, id_: str, key: str, type_: str = "sc:Text", path: str = ""
) -> dict[str, Any]:
    source: dict[str, Any] = {"fileObject": {"@id": file.name}, "extract": {"column": key}}
    if path:
        source["transform"] = {"jsonPath": path}
    return {"@type": "cr:Field", "@id": id_, "name": key, "dataType": type_, "source": source}


def rows_of(file: RowFile) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file on this machine."""
    if file.path is not None:
        with file.path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)
