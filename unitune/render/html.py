"""Draw documents as HTML: whole pages, and fragments for notebooks.

A page requests nothing. It contains its style and script, and a content security policy with their
hashes blocks all others, so models' answers cannot run as code.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import cast

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from unitune.files.filesystem import replacing
from unitune.render import typography
from unitune.render.charts import short_number
from unitune.render.sections import SEVERITY_TONES, Document, text_of
from unitune.security.json_fields import whole_text

PACKAGE = "unitune.render"
LONG_TEXT = 90  # characters; only the beginning of a cell's longer further text is shown at first


def render(document: Document) -> str:
    """Return a document as one HTML page that needs no other files and no network."""
    template = environment().get_template("document.html.j2")
    return page(template, resource("style.css"), document=document)


def write_page(path: Path, document: Document) -> Path:
    """Write a document as an HTML page, and return the path."""
    with replacing(path) as file:
        file.write(render(document))
    return path


def fragment(document: Document) -> str:
    """Return a document for a notebook: tables and sentences without style sheet or script."""
    return whole_text(environment().get_template("fragment.html.j2").render(document=document))


def page(template: Template, style: str, **values: object) -> str:
    """Return a template as one HTML page that needs no other files and no network."""
    values |= {"style": Markup(style), "policy": policy(style)}  # noqa: S704 - our own style
    return whole_text(template.render(**values))


@cache
def environment(*packages: str) -> Environment:
    """Return an environment with the templates of packages and of this one; values are escaped."""
    loaders = [PackageLoader(name, package_path="") for name in (*packages, PACKAGE)]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cast("dict[str, object]", environment.filters).update(
        typeset=typography.typeset, short_number=short_number, cell=text_of, slug=slug, kind=_kind
    )
    cast("dict[str, object]", environment.globals).update(
        typography=typography, long_text=LONG_TEXT, severity_tones=SEVERITY_TONES
    )
    return environment


def _kind(part: object) -> str:
    return type(part).__name__


def slug(title: str) -> str:
    """Return the id of a section with a title."""
    return re.sub("[^a-z0-9]+", "-", title.lower()).strip("-") or "section"


def resource(name: str, package: str = PACKAGE) -> str:
    """Return the text of a package's file."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def policy(style: str, script: str = "") -> str:
    """Return the content security policy that allows only this style and this script."""
    scripts = f"; script-src '{_hash(script)}'" if script else ""
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src '{_hash(style)}'{scripts}"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
