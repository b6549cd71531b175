"""Describe the training rows, which are not published, in Croissant 1.1.

Source: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html (2026-11-28).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unitune.card.facts import CardFacts, RowFile, digest_of
from unitune.files.filesystem import sha256

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
