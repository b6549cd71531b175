"""Convert the providers of a suite that was not run to a base model and contenders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue, ValidationError

from unitune.importers.suite import Base, base_of
from unitune.job.contenders import ContenderSpec, Model, Server
from unitune.job.evaluate import Evaluate
from unitune.text import clip

ADDRESS = ("apiBaseUrl", "apiHost")
# Settings of a provider by their keys in `evaluate`
SETTINGS = {"temperature": "temperature", "max_tokens": "max_tokens"}
# Keys that are imported or do not affect answers
SILENT = {*ADDRESS, *SETTINGS, "apiKeyEnvar", "basePath"}


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider as named in a config."""

    id: str
    label: str
    config: Mapping[str, JsonValue]

    @property
    def base(self) -> Base | None:
        """The model, if a backend supports it by that name."""
        return base_of_provider(self.id)

    @property
    def url(self) -> str | None:
        """The server's address, if the config names one."""
        host, url = self.config.get("apiHost"), self.config.get("apiBaseUrl")
        return (
            f"https://{host}/v1" if isinstance(host, str) else url if isinstance(url, str) else None
        )

    def contender(self, name: str) -> ContenderSpec | None:
        """Return the provider as a contender; None if a job cannot name it."""
        try:
            if self.url is not None:
                key = self.config.get("apiKeyEnvar")
                return Server.model_validate(
                    {
                        "name": name,
                        "url": self.url,
                        "model": self.id.rpartition(":")[2],
                        "api_key_variable": key,
                        "prompt": "zero-shot",
                    }
                )
            if self.base is None:
                return None
            base = self.base
            return Model(name=name, backend=base.backend, model=base.model, prompt="zero-shot")
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True)
class Providers:
    """Imported content of a config's providers."""

    base: Base | None
    contenders: tuple[ContenderSpec, ...]
    settings: Mapping[str, JsonValue]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, config: JsonValue) -> Providers:
        """Return the providers of a results file's `config`."""
        content = config if isinstance(config, dict) else {}
        listed = content.get("providers", content.get("targets"))
        given = listed if isinstance(listed, list) else [listed] if listed else []
        providers = [found for each in given if (found := _provider(each))]
        start = next((each for each in providers if each.base and not each.url), None)
        contenders: dict[str, ContenderSpec] = {}
        notes: list[str] = []
        for provider in providers:
            name = provider.label or provider.id
            contender = provider.contender(name)
            if contender is None:
                notes.append(
                    f"The provider {name} was not imported, because no backend supports it."
                )
            elif provider is not start:
                contenders.setdefault(name, contender)
        settings, differing = _settings(providers)
        notes += [*differing, *_lost(providers)]
        base = start.base if start else None
        return cls(base, tuple(contenders.values()), settings, tuple(notes))


def base_of_provider(provider_id: str) -> Base | None:
    """Return the model of a provider's id; None if no backend supports it."""
    vendor, _, rest = provider_id.partition(":")
    return base_of(vendor, rest if vendor == "bedrock" else rest.rpartition(":")[2])


def _provider(given: JsonValue) -> Provider | None:
    match given:
        case str():
            return Provider(given, "", {})
        case {"id": str() as name, **rest}:
            config, label = rest.get("config"), rest.get("label")
            known = config if isinstance(config, dict) else {}
            return Provider(name, label if isinstance(label, str) else "", known)
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
        listed = ", ".join(f"{clip(value)} of {each.label or each.id}" for each, value in pairs)
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
            name = provider.label or provider.id
            yield f"These settings of {name} were not imported: {', '.join(lost)}."
