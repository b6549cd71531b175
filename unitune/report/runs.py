"""Write the sentences of a run: steps, events, lineage, and its bill next to its estimate."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from unitune.backends.protocol import FIGURES, Event, State
from unitune.cost.documents import Estimate
from unitune.cost.reconcile import Reconciliation
from unitune.ledger import Ledger
from unitune.ledger.finding import Link
from unitune.ledger.model_versions import standing_aliases
from unitune.render.sections import Fact
from unitune.render.typography import counted, dollars, duration
from unitune.run.run import Run
from unitune.workspace.home import home


def duplicate_lines(run: Run) -> list[str]:
    """Return a sentence for each further job with the run's key."""
    return [
        f"{run.backend_name} has a second job for this run, {job}, which is charged as well. "
        f"Cancel it: unitune runs cancel {run.id} --job {job}"
        for job in run.duplicates
    ]


def lineage_facts(run: Run) -> Iterator[Fact]:
    """Yield the runs before a run in its lineage, the first training first, and those after it."""
    before, after = run.lineage
    for term, links in (("Started from", before), ("Continued by", after)):
        for link in links:
            address = f"/runs/{link.name}" if link.method else ""
            yield Fact(term, f"{link.name} ({_link(link)})", link=address)


def _link(link: Link) -> str:
    if link.method is None:
        return "not a run of this ledger"
    return link.method if link.state is State.SUCCEEDED else f"{link.method}, {link.state}"


def registered_names(run: Run) -> list[str]:
    """Return the registered version of a run's model, and the aliases that point to it."""
    ledger = Ledger(home())
    if (version := ledger.version_of_run(run.id)) is None:
        return []
    aliases = standing_aliases(ledger.alias_moves(version.model)).values()
    return [str(version), *(str(move) for move in aliases if move.number == version.number)]


def step_facts(event: Event, estimate: Estimate | None = None, *, brief: bool = False) -> str:
    """Return one training step in words, e.g. ``step 12/87  loss 0.412  1 min left``.

    Args:
        event: Event of a step; missing figures are omitted.
        estimate: Estimate of the whole training, to derive the cost so far.
        brief: Whether to show only step, loss and time left, for narrow terminals.
    """
    step, steps = event.number("step"), event.number("steps")
    parts = [] if step is None else [f"step {step:.0f}" + (f"/{steps:.0f}" if steps else "")]
    parts += _figures(event)[: 2 if brief else None]
    if not brief and (speed := event.number("tokens_per_second")) is not None:
        parts.append(f"{speed:,.0f} tokens/s")
    if (left := event.number("seconds_left")) is not None:
        parts.append(f"{duration(left)} left")
    if not brief and (spent := spent_so_far(event, estimate)):
        parts.append(f"{spent} so far")
    return "  ".join(parts)


def spent_so_far(event: Event, estimate: Estimate | None) -> str:
    """Return the approximate tokens and dollars used until a step; empty if unknown."""
    step, steps = event.number("step"), event.number("steps")
    if estimate is None or not step or not steps:
        return ""
    tokens, usd, share = estimate.trained_tokens, estimate.launch_usd, Decimal(min(step / steps, 1))
    if tokens is None or usd is None:
        return ""
    return f"about {tokens.expected * share:,.0f} tokens and {dollars(usd.expected * share)}"


def _figures(event: Event) -> list[str]:
    """Return the measurements of an event: a loss, a reward, pairs won, a score, or none.

    A reward includes the share of groups without signal and, if monitored, the divergence.
    """
    names = (*FIGURES, "accuracy", "score", "no_signal", "kl")
    values = ((name, event.number(name)) for name in names)
    return [f"{name.replace('_', ' ')} {value:.3f}" for name, value in values if value is not None]


def event_line(event: Event) -> str:
    """Return a line about an event other than a step; empty for unimportant ones."""
    if event.kind == "validation" and (figures := _figures(event)):
        step = event.number("step")
        when = "" if step is None else f"after step {step:.0f}: "
        return f"{when}validation {', '.join(figures)}"
    if event.kind in ("message", "warning"):
        return str(event.data.get("text") or "")
    return ""


def billed(bill: Reconciliation) -> str:
    """Return the cost of a run, and its certainty."""
    tokens, usd = bill.bill.tokens, bill.bill.usd
    parts = [f"{tokens:,} trained tokens"] if tokens is not None else []
    parts += [f"{dollars(usd)} stated"] if usd not in (None, bill.usd) else []
    parts.append("cost unknown" if bill.usd is None else dollars(bill.usd))
    text = ", ".join(parts)
    if bill.implausible and bill.usd is None:
        text += " (what the vendor states is implausible and is not booked)"
    elif bill.provisional and bill.end == "succeeded":
        text += " (provisional: the vendor does not report its charges)"
    elif bill.provisional:
        text += f" (provisional: by the vendor's rule for what has {bill.end}; the bill may differ)"
    elif bill.bill.usd is None and bill.usd is not None:
        text += " at the price of the plan"
    return text + ("; more than the plan thought possible" if bill.above_high else "")


def differences(bill: Reconciliation) -> str:
    """Return the parts of a bill that differ from its estimate; empty if unknown."""
    parts: list[str] = []
    if bill.implausible and (most := bill.estimated_tokens) is not None:
        parts.append(f"at most {most.high:,} tokens were estimated; check the vendor's bill")
    if bill.epochs is not None and bill.implied_epochs is not None:
        epochs = counted(bill.epochs, "epoch")
        parts.append(f"{epochs} ({bill.implied_epochs:.3f} by the tokens)")
    if bill.framing_error is not None:
        parts.append(f"{bill.framing_error:+.2f} tokens a row and epoch")
    if bill.price_drift is not None:
        parts.append(f"price {100 * bill.price_drift:+.1f} %")
    return ", ".join(parts)
