"""Convert the providers of a suite that was not run to a base model and contenders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from pydantic import JsonValue, ValidationError

from unitune.importers.suite import Base, Suite, base_of
from unitune.job.contenders import ContenderSpec, Model, Server
from unitune.job.evaluate import Evaluate
from unitune.text import clip

ADDRESS = ("apiBaseUrl", "apiHost")
# Settings of a provider by their keys in `evaluate`
SETTINGS = {"temperature": "temperature", "max_tokens": "max_tokens"}
# Keys that are imported or do not affect answers
SILENT = {*ADDRESS, *SETTINGS, "apiKeyEnvar", "basePath"}


class Provider(NamedTuple):
    """A provider as named in a config."""

    id: str
    name: str
    config: Mapping[str, JsonValue]

    def contender(self) -> ContenderSpec | None:
        """Return the provider as a contender; None if a job cannot name it."""
        host, url = self.config.get("apiHost"), self.config.get("apiBaseUrl")
        spec: dict[str, JsonValue] = {"name": self.name, "prompt": "zero-shot"}
        try:
            if isinstance(host, str) or isinstance(url, str):
                spec["url"] = f"https://{host}/v1" if isinstance(host, str) else url
                spec["model"] = self.id.rpartition(":")[2]
                spec["api_key_variable"] = self.config.get("apiKeyEnvar")
                return Server.model_validate(spec)
            base = base_of_provider(self.id)
            return Model.model_validate({**spec, **base._asdict()}) if base else None
        except ValidationError:
            return None


def with_providers(suite: Suite, config: JsonValue) -> Suite:
    """Return a suite with the models and settings of a results file's `config`."""
    content = config if isinstance(config, dict) else {}
    listed = content.get("providers", content.get("targets"))
    given = listed if isinstance(listed, list) else [listed] if listed else []
    providers = [found for each in given if (found := _provider(each))]
    base: Base | None = None
    contenders: dict[str, ContenderSpec] = {}
    notes: list[str] = []
    for provider in providers:
        contender = provider.contender()
        if contender is None:
            notes.append(
                f"The provider {provider.name} was not imported, because no backend supports it."
            )
        elif base is None and isinstance(contender, Model):
            base = Base(contender.backend, contender.model)
        else:
            contenders.setdefault(provider.name, contender)
    settings, differing = _settings(providers)
    return replace(
        suite,
        base=base,
        contenders=tuple(contenders.values()),
        settings=settings,
        notes=(*suite.notes, *notes, *differing, *_lost(providers)),
    )


def base_of_provider(provider_id: str) -> Base | None:
    """Return the model of a provider's id; None if no backend supports it."""
    vendor, _, rest = provider_id.partition(":")
    return base_of(vendor, rest if vendor == "bedrock" else rest.rpartition(":")[2])


def _provider(given: JsonValue) -> Provider | None:
    match given:
        case str():
            return Provider(given, given, {})
        case {"id": str() as name, **rest}:
            config, label = rest.get("config"), rest.get("label")
            known = config if isinstance(config, dict) else {}
            return Provider(name, label if isinstance(label, str) and label else name, known)
        case dict() if len(given) == 1:
            name, options = next(iter(given.items()))
            return _provider({"id": name, **(options if isinstance(options, dict) else {})})
        case _:
            return None


def _settings(providers: Sequence[Provider]) -> tuple[dict[str, JsonValue], list[str]]:
    shared: dict[str, JsonValue] = {}
    notes: list[str] = []
    for key, name in SETTINGS.items():
        values = [provider.config.get(key) for provider in providers]
        if all(value is None for value in values):
            continue
        if all(value == values[0] for value in values) and _is_allowed(name, values[0]):
            shared[name] = values[0]
            continue
        pairs = zip(providers, values, strict=True)
        listed = ", ".join(f"{clip(value)} of {each.name}" for each, value in pairs)
        notes.append(f"{key} was not imported: it is {listed}. Set evaluate.{name}.")
    return shared, notes


def _is_allowed(name: str, value: JsonValue) -> bool:
    try:
        Evaluate.model_validate({name: value})
    except ValidationError:
        return False
    return True


def _lost(providers: Sequence[Provider]) -> Iterator[str]:
    for provider in providers:
        if lost := sorted(provider.config.keys() - SILENT):
            yield f"These settings of {provider.name} were not imported: {', '.join(lost)}."
