"""Check the images of a job's rows against a backend's rules."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from unitune.backends import registry
from unitune.backends.image_rules import Images
from unitune.backends.offer import Offer, Terms
from unitune.data.dataset import Row
from unitune.data.example import Example
from unitune.data.images import ImageUrl
from unitune.data.split import Splits
from unitune.findings import Finding, error, note, warning
from unitune.job.job import Job
from unitune.text import listed

HARDWARE = "Models that train on your own or rented machines see text only. "


def image_findings(job: Job, offer: Offer, terms: Terms, splits: Splits) -> Iterator[Finding]:
    """Yield findings about training and validation rows with images."""
    parts = (splits.train, splits.validation)
    some = ((part, row) for part in parts for row in part.rows if row.example.images)
    first = next(some, None)
    if first is None:
        return
    rules = terms.images
    if rules is None or job.method not in rules.methods:
        what = f"the row has an image, but {offer.name} does not train {job.base_model}"
        what += f" by {job.method} on images." if rules else " on images."
        fix = f"{HARDWARE if offer.is_own else ''}Leave such rows out. {_others(job)}".strip()
        yield first[0].located(error("no-images", what, fix), first[1])
        return
    rows = images = detailed = 0
    for part, row in chain([first], some):
        rows += part is splits.train
        images += len(row.example.images) if part is splits.train else 0
        detailed += sum(image.detail not in (None, "auto") for image in row.example.images)
        yield from (part.located(finding, row) for finding in _row_findings(offer, rules, row))
    if rules.rows is not None and rows > rules.rows:
        what = f"{rows:,} training rows have images; {offer.name} accepts {rules.rows:,}."
        yield error("too-many-images", what, "Leave rows out.")
    if detailed and not rules.detail:
        what = (
            f"{offer.name} does not support `detail`, which is set for {detailed:,} of the images."
        )
        yield warning("image-detail", what, "They are sent without it; their tokens may differ.")
    yield note(
        "images",
        f"images in training rows: {images:,} in {rows:,}, checked against {offer.name}'s rules "
        f"({rules.source}).",
    )


def _row_findings(offer: Offer, rules: Images, row: Row) -> Iterator[Finding]:
    count = len(row.example.images)
    if rules.per_row is not None and count > rules.per_row:
        what = f"the row has {count} images; {offer.name} accepts {rules.per_row} in a row."
        yield error("too-many-images", what, "Remove some, or split the row.")
    for where, image in _placed(row.example):
        for problem, allowed, fix in _problems(rules, image):
            what = f"{where}, {image}, {problem}; {offer.name} accepts"
            yield error("unfit-image", f"{what} {allowed}.", fix)


def _placed(example: Example) -> Iterator[tuple[str, ImageUrl]]:
    for at, turn in enumerate(example.messages):
        for index, piece in enumerate(turn.pieces):
            if isinstance(piece, ImageUrl):
                yield f"messages[{at}].content[{index}]", piece


def _problems(rules: Images, image: ImageUrl) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with an image, what is accepted, and the way to get there."""
    header = image.image
    if header is None:
        if image.scheme not in rules.references:
            kinds = ["embedded images", *(f"{scheme}: addresses" for scheme in rules.references)]
            fix = "Save the image next to the data file and write its path."
            yield f"has a {image.scheme}: address", listed(kinds), fix
        return
    kind = header.media_type.partition("/")[2]
    if kind not in rules.types:
        yield f"is {kind}", ", ".join(rules.types), f"Save it as {rules.types[0]}."
    elif rules.modes is not None and header.mode not in rules.modes:
        allowed = " and ".join(rules.modes)
        yield f"has the colour mode {header.mode}", allowed, f"Convert it to {rules.modes[0]}."
    if rules.bytes is not None and header.size > rules.bytes:
        yield f"has {header.size:,} bytes", f"{rules.bytes:,}", "Make it smaller."


def _others(job: Job) -> str:
    """Return a sentence with the models of this backend and others that train on images."""
    found: list[str] = []
    for offer in map(registry.offer, registry.backend_names()):
        terms = {model.name: offer.terms(model.name).images for model in offer.models}
        models = [name for name, rules in terms.items() if rules and job.method in rules.methods]
        if models and offer.closed is None:
            found.append(f"{offer.name} ({', '.join(models[:3])})")
    return f"These train on images: {listed(found)}." if found else ""
