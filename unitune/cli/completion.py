"""Complete run ids, model versions and aliases, comparison ids and backend names in a shell.

The script written by `unitune --install-completion` calls the command with the text typed so far.
Errors are suppressed, because they would appear in the middle of the user's command line.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

MOST_RUNS = 100  # only the newest runs are completed

Choices = list[tuple[str, str]]  # value and description, which zsh and fish show next to it


def _completion(*sources: Callable[[], Choices]) -> Callable[[str], Choices]:
    def complete(incomplete: str) -> Choices:
        begun: Choices = []
        for source in sources:
            with suppress(Exception):  # e.g. the ledger cannot be read
                begun += [choice for choice in source() if choice[0].startswith(incomplete)]
        return begun

    return complete


def _comparisons() -> Choices:
    from unitune.evaluate.history import comparison_listing

    listed, _ = comparison_listing(MOST_RUNS)
    return [(each.id or "", f"{each.job}, {each.verdict}") for each in listed]


def _runs() -> Choices:
    from unitune.ledger import Ledger, RunRecord
    from unitune.workspace.home import home

    listed = Ledger(home()).newest(MOST_RUNS)
    return [(r.id, f"{r.name}, {r.state}") for r in listed if isinstance(r, RunRecord)]


def _stored() -> Choices:
    from unitune.backends import registry
    from unitune.backends.capabilities import Stores

    keeper = registry.backend("local")
    models = keeper.stored() if isinstance(keeper, Stores) else []
    return [(model.name, "base model") for model in models]


def _models() -> Choices:
    from unitune.registry.versions import registered_models

    return [(model.name, f"{len(model.versions)} versions") for model in registered_models()]


def _aliases() -> Choices:
    from unitune.registry.versions import registered_models

    moves = [move for model in registered_models() for move in model.aliases.values()]
    return [(str(move), f"version {move.number}") for move in moves]


def _versions() -> Choices:
    from unitune.registry.versions import registered_models

    versions = [version for model in registered_models() for version in reversed(model.versions)]
    return [*_aliases(), *((str(each), f"run {each.run_id}") for each in versions)]


def _backends() -> Choices:
    from unitune.backends import registry

    offers = (registry.offer(name) for name in registry.offer_names() if name != "fake")
    return [(offer.name, offer.summary) for offer in offers]


complete_run = _completion(_runs, _versions)
complete_model = _completion(_models)
complete_alias = _completion(_aliases)
complete_served = _completion(_runs, _versions, _stored)
complete_comparison = _completion(_comparisons)
complete_backend = _completion(_backends)
