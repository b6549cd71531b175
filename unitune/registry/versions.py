"""Register models, and promote, roll back and remove their aliases.

Moving an alias holds the lease of the target run, so that the run cannot be deleted meanwhile.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from unitune.cost.budget import HostingBudget
from unitune.errors import (
    BackendError,
    GateNotPassed,
    Mismatch,
    NotFoundError,
    UnreadableRecord,
    UserError,
)
from unitune.evaluate.prompts.tuned_run import (
    GateRecord,
    gate_records,
    refuse_changed_files,
    rule_of,
)
from unitune.evaluate.verdict.looks import ALPHA, adjusted_p
from unitune.ledger import Ledger, RunRecord
from unitune.ledger.audit import current_user
from unitune.ledger.finding import LIST_MODELS, find_version
from unitune.ledger.model_versions import AliasMove, ModelVersion, former_numbers, standing_aliases
from unitune.models import VersionName
from unitune.planning.start import model_fingerprint
from unitune.registry.deployments import move_deployment, warn_of_mismatches
from unitune.run.deployment import Deployment
from unitune.run.handle import Run
from unitune.tracking.feed import feeding
from unitune.tracking.interface import WITH_REGISTRY
from unitune.workspace.home import home

# Words that look like a number or the newest run. Source: MLflow also reserves `latest` and v with
# digits: mlflow/utils/validation.py (2026-11-28).
RESERVED_ALIASES = re.compile(r"latest|newest|v\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A name with its versions and the moves of its aliases, oldest first."""

    name: str
    versions: tuple[ModelVersion, ...]
    moves: tuple[AliasMove, ...]

    @property
    def aliases(self) -> dict[str, AliasMove]:
        """The last move of each current alias."""
        return standing_aliases(self.moves)

    def former_numbers(self, alias: str) -> list[int]:
        """Return the versions that successive rollbacks lead to."""
        return former_numbers(move for move in self.moves if move.alias == alias)


def registered_models() -> list[RegisteredModel]:
    """Return the registered models of this folder's ledger; unreadable ones are logged."""
    models: list[RegisteredModel] = []
    for name in Ledger(home()).model_names():
        try:
            models.append(find_registered_model(name))
        except (UnreadableRecord, NotFoundError) as problem:  # or a damaged name
            logging.getLogger("unitune").warning("%s", problem)
    return models


def find_registered_model(name: str) -> RegisteredModel:
    """Return a registered model by name.

    Raises:
        NotFoundError: The name does not exist.
    """
    ledger = Ledger(home())
    if versions := ledger.versions(name):
        return RegisteredModel(name, tuple(versions), tuple(ledger.alias_moves(name)))
    raise NotFoundError("registered model", name, ledger.model_names(), LIST_MODELS)


def register(run: Run, name: str | None = None) -> ModelVersion:
    """Register a run's model under the next version number of a name, unless it has one.

    Args:
        run: Succeeded run.
        name: Name of the registered model; None for the job's name.

    Raises:
        UserError: The run has no model, or is registered under another name.
    """
    ledger = Ledger(home())
    with ledger.acting(run.id) as record:
        version = _registered(ledger, record, name)
    mirror(ledger, version.model)
    return version


def promote(
    run: Run,
    alias: str,
    *,
    name: str | None = None,
    without_gate: str | None = None,
    deploy: HostingBudget | Decimal | float | None = None,
) -> AliasMove:
    """Point an alias of a registered model to a run's model, which has passed its gate.

    The newest comparison with a gate and this run as the candidate decides. Its gate must be
    that of the run's job or of the alias's last promotion. A failure on more cases must not be on
    record. A claim to be better must still hold when all candidates compared on its cases since
    then are counted. The run is registered if needed.

    Examples:
        >>> comparison = unitune.compare(job, run)
        >>> unitune.registry.promote(run, "production")

    Args:
        run: Succeeded run.
        alias: Alias, such as production.
        name: Name of the registered model; None for the job's name.
        without_gate: Reason for a promotion without a passed gate, which is recorded.
        deploy: Move the deployment that serves the alias to this model first, if the rest of its
            time costs at most this many US dollars. If the vendor refuses, the alias does not move.
            None leaves the deployment unchanged.

    Returns:
        The recorded move.

    Raises:
        GateNotPassed: The run failed its newest gate or failed on more cases, or is no longer shown
            to be better.
        Mismatch: The model, or the files of the comparison, changed since.
        UserError: The run has no gate result, another gate or no model, or the alias is invalid or
            has no deployment.
        Unsupported: The vendor cannot move a deployment.
        UnituneError: The vendor did not move the deployment, or the result is unknown.
    """
    _check_alias(alias)
    if without_gate is not None and not without_gate.strip():
        raise UserError("a promotion without a gate needs a reason for the record.")
    ledger = Ledger(home())
    with ledger.acting(run.id) as record:
        evidence = None if without_gate else _passed_gate(ledger, record, name, alias)
        version = _registered(ledger, record, name)
        move = AliasMove(
            model=version.model,
            alias=alias,
            number=version.number,
            previous=None,
            kind="promote",
            time=datetime.now(UTC),
            moved_by=current_user(),
            reason=without_gate,
            comparison=evidence and evidence.comparison,
            verdict_sha256=evidence and evidence.verdict_sha256,
        )
        deployment = move_deployment(ledger, move, record, deploy)
        move = ledger.move_alias(record, move)
    return _moved(ledger, move, deployment)


def rollback(
    name: str,
    reason: str | None = None,
    *,
    deploy: HostingBudget | Decimal | float | None = None,
) -> AliasMove:
    """Point an alias back to the version before its last promotion.

    Repeated rollbacks each go one version further back. Versions whose run is deleted are skipped.

    Args:
        name: Alias, such as ``triage@production``.
        reason: Reason for the record.
        deploy: As `promote`.

    Raises:
        NotFoundError: The alias does not exist.
        UserError: The alias has no former version.
    """
    ledger, current = _standing(name)
    back = replace(current, kind="rollback", previous=current.number, reason=reason)
    model = find_registered_model(current.model)
    runs = {version.number: version.run_id for version in model.versions}
    for number in filter(runs.get, model.former_numbers(current.alias)):
        with suppress(NotFoundError):  # the run is deleted
            record = ledger.record(runs[number])
            return _move(ledger, record.id, replace(back, number=number), deploy)
    raise UserError(
        f"{current} has no former version. List its versions with: unitune models {current.model}"
    )


def remove_alias(name: str, reason: str | None = None) -> AliasMove:
    """Remove an alias; its moves stay on record.

    Args:
        name: Alias, such as ``triage@production``.
        reason: Reason for the record.

    Raises:
        NotFoundError: The alias does not exist.
    """
    ledger, current = _standing(name)
    run_id = find_version(ledger, VersionName(current.model, current.number, None)).run_id
    return _move(
        ledger, run_id, replace(current, kind="remove", previous=current.number, reason=reason)
    )


def _standing(name: str) -> tuple[Ledger, AliasMove]:
    ledger, parsed = Ledger(home()), VersionName.parse(name)
    if parsed is None or parsed.alias is None:
        raise UserError(f"{name!r} is not an alias. Use NAME@ALIAS, such as triage@production.")
    find_version(ledger, parsed)
    return ledger, standing_aliases(ledger.alias_moves(parsed.model))[parsed.alias]


def _move(
    ledger: Ledger,
    run_id: str,
    move: AliasMove,
    deploy: HostingBudget | Decimal | float | None = None,
) -> AliasMove:
    """Move an alias from its last seen version; a concurrent move is an error."""
    with ledger.acting(run_id) as record:
        who = {"moved_by": current_user(), "comparison": None, "verdict_sha256": None}
        deployment = move_deployment(ledger, move, record, deploy)
        move = ledger.move_alias(record, replace(move, **who))
    return _moved(ledger, move, deployment)


def _moved(ledger: Ledger, move: AliasMove, deployment: Deployment | None) -> AliasMove:
    if deployment is not None:
        with suppress(BackendError):  # it stays `swapping`, which is reported
            deployment.refresh()
    warn_of_mismatches(ledger, move.model)
    mirror(ledger, move.model)
    return move


def _registered(ledger: Ledger, record: RunRecord, name: str | None) -> ModelVersion:
    if record.model is None:
        raise UserError(
            f"run {record.id} is {record.state} and has no model. Watch it with `unitune runs "
            f"watch {record.id}`, or list others with `unitune runs`"
        )
    known = ledger.version_of_run(record.id)
    wanted = name or (known.model if known else ledger.job(record.id).name)
    if VersionName.parse(f"{wanted}:1") is None:
        raise UserError(
            f"the name {wanted!r} is not valid for a registered model: use lower-case letters, "
            "digits and dashes, at most 40."
        )
    fingerprint = model_fingerprint(record.model)
    version = ledger.register(record, wanted, fingerprint, current_user())
    refuse_changed_model(version, fingerprint)
    return version


def refuse_changed_model(version: ModelVersion, fingerprint: str) -> None:
    """Raise `Mismatch` if a model's files differ from the registered ones, or are not here."""
    if version.fingerprint != fingerprint:
        raise Mismatch(
            f"the model of {version} differs from the registered one: its adapter files "
            f"in {version.tuned_model.name} changed since, or are not on this machine."
        )


def _passed_gate(ledger: Ledger, record: RunRecord, name: str | None, alias: str) -> GateRecord:
    gates = [each for each in gate_records(ledger, record) if each.gate is not None]
    instead = "To promote it anyway, pass --without-gate REASON, which is recorded."
    compare = f"`unitune compare FILE --run {record.id}`, with a gate in the job"
    if not gates or record.model is None:
        raise UserError(
            f"the model of run {record.id} has no gate result. Compare it: {compare}. {instead}"
        )
    gate = gates[0]
    if gate.gate:
        raise GateNotPassed(
            f"run {record.id} has not passed the gate of comparison {gate.comparison}: "
            f"{gate.reason} {instead}",
            gate.gate,
        )
    if gate.model_fingerprint != model_fingerprint(record.model):
        raise Mismatch(
            f"the model of run {record.id} is not the one in comparison {gate.comparison}: its "
            f"files changed since, or are not on this machine. Compare it: {compare}."
        )
    refuse_changed_files(gate, is_shared=ledger.is_shared)
    _refuse_weaker_evidence(ledger, record, gates, f"{name or ledger.job(record.id).name}@{alias}")
    return gate


def _refuse_weaker_evidence(
    ledger: Ledger, record: RunRecord, gates: Sequence[GateRecord], alias: str
) -> None:
    """Refuse a passed gate that other evidence on record outweighs."""
    gate, launched = gates[0], ledger.job(record.id)
    passed = f"comparison {gate.comparison} of run {record.id} on {gate.cases:,} cases"
    instead = "To promote it anyway, pass --without-gate REASON, which is recorded."
    whose = "the run's job"
    rule = rule_of(launched) if launched.evaluate.gate is not None else None
    if rule is None:
        rule, whose = _last_rule(ledger, *alias.split("@")), f"the last promotion to {alias}"
    if rule not in (None, gate.rule):
        raise UserError(
            f"{passed} passed a different gate from that of {whose}: gate, margin, scorers, "
            f"contenders, clusters or leaks differ. Compare with that gate. {instead}"
        )
    for failed in gates[1:]:
        if failed.gate == 1 and failed.cases > gate.cases:
            raise GateNotPassed(
                f"{passed} passed its gate, but comparison {failed.comparison} failed on "
                f"{failed.cases:,}: {failed.reason} {instead}",
                failed.gate,
            )
    p_value = adjusted_p(ledger.looks(gate.test), gate.comparison)
    if gate.verdict == "better" and p_value is not None and p_value > ALPHA:
        raise GateNotPassed(
            f"{passed} showed the candidate to be better, but other candidates were compared on "
            f"these cases since. Counting all of them, its p-value is {p_value:.2g}. {instead}",
            3,
        )


def _last_rule(ledger: Ledger, model: str, alias: str) -> str | None:
    moves = [each for each in ledger.alias_moves(model) if each.alias == alias and each.comparison]
    runs = {version.number: version.run_id for version in ledger.versions(model)}
    with suppress(NotFoundError, IndexError):  # the run is deleted, or there was no promotion
        records = gate_records(ledger, ledger.record(runs[moves[-1].number]))
        of_move = (each.rule for each in records if each.comparison == moves[-1].comparison)
        return next(of_move, None)
    return None


def _check_alias(alias: str) -> None:
    if VersionName.parse(f"any@{alias}") is None or RESERVED_ALIASES.fullmatch(alias):
        raise UserError(
            f"{alias!r} is not a valid alias. Use a letter, then letters, digits, - and _, at "
            "most 40, and not latest, newest, or v with a number. Example: production."
        )


log = logging.getLogger(__name__)


def mirror(ledger: Ledger, model: str) -> None:
    """Send a registered model's versions and aliases to its trackers; failures are warnings.

    Nothing is read back. A missed mirror is updated at the next change or by `unitune runs track`.
    """
    names, record = _mirrored(ledger, model)
    if record is None:
        return
    with feeding(ledger, record, names) as outcomes:
        pass
    for outcome in outcomes:
        if outcome.problem:
            log.warning(
                "the registry of %s was not updated with %s: %s. Update it later: unitune "
                "runs track %s --to %s",
                *(outcome.tracker, model, outcome.problem.rstrip("."), record.id, outcome.tracker),
            )


def _mirrored(ledger: Ledger, model: str) -> tuple[list[str], RunRecord | None]:
    for version in reversed(ledger.versions(model)):
        try:
            names = sorted(WITH_REGISTRY.intersection(ledger.job(version.run_id).track))
            if names:
                return names, ledger.record(version.run_id)
        except (NotFoundError, UnreadableRecord):  # the run is deleted, or was launched by others
            continue
    return [], None
