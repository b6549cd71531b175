"""Build the MCP server of a project folder and serve it on standard input and output.

Tools that spend money or stop runs have one budget for the whole session.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from functools import wraps
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from unitune._version import __version__
from unitune.backends.protocol import State
from unitune.cli.consent import refuse_unready
from unitune.cli.streams import explained, first
from unitune.cli.watch import RunView
from unitune.cost.spread import cents
from unitune.errors import Mismatch, OverBudget, UserError
from unitune.evaluate.compare import compare as run_comparison
from unitune.evaluate.inference.engine import EvaluationProgress
from unitune.mcp.tools import (
    JOB,
    Backend,
    Document,
    File,
    Planned,
    ReadingTools,
    RunName,
    dumped,
    verdict,
)
from unitune.run.launching import BEFORE_JOB
from unitune.run.run import Run, launch, launch_sweep, runs
from unitune.security.redaction import printable, redacted

if TYPE_CHECKING:
    from mcp.server import MCPServer


Hash = Annotated[str, Field(description="`plan_hash` of the job's current plan, from `plan`.")]
# Errors that are raised before anything is sent
REFUSALS = (UserError, Mismatch, OverBudget)


class LaunchingTools(ReadingTools):
    """Reading tools, and launches whose total cost is bounded.

    A launch counts with the maximum of its estimate, at which unitune also stops the run. A
    comparison counts with the cost of its answers, also of those that it takes from an earlier one,
    or after a failure with what it was allowed to spend.
    """

    def __init__(self, root: Path, budget: Decimal) -> None:
        super().__init__(root)
        self.budget = budget
        self._used: dict[str, Decimal] = {}
        self._lock = Lock()

    def run(self, plan_hash: Hash, file: File = JOB, backend: Backend = None) -> Document:
        """Launch the job exactly once, as planned, and return without waiting. Costs money.

        Follow it with `show`. A repeated call returns the run that it launched before, or continues
        its launch if that was interrupted.
        """
        with self._lock:
            planned = self._confirmed(file, plan_hash, backend)
            resolved, plan = planned.resolved, planned.plan
            refuse_unready(resolved)
            same = [run for run in runs() if run.fingerprint == resolved.fingerprint]
            existing = [run for run in same if run.state not in (State.FAILED, State.CANCELLED)]
            interrupted = [run for run in existing if run.state in BEFORE_JOB]
            if existing and not interrupted:
                return self._with_budget({"runs": [dumped(RunView.of(run)) for run in existing]})
            if resolved.is_sweep and resolved.offer.trains_here:
                raise UserError(f"a sweep on this machine needs a terminal: unitune run {file}")
            most = Decimal(0)
            if plan.charge != "none":
                usd = plan.estimate and plan.estimate.launch_usd
                if usd is None:
                    raise OverBudget(
                        "the price of the training is unknown. Only the user can launch it."
                    )
                most = usd.high
            launched: list[Run] = []
            key = f"launch {resolved.fingerprint} {len(same) - len(existing)}"
            with self._spending(key, most, launched):
                if interrupted:
                    launched.extend(run.resume() for run in interrupted)
                elif resolved.is_sweep:
                    launched.extend(launch_sweep(resolved, plan=plan))
                else:
                    launched.append(launch(resolved, plan=plan))
            return self._with_budget({"runs": [dumped(RunView.of(run)) for run in launched]})

    def compare(
        self,
        plan_hash: Hash,
        file: File = JOB,
        run: Annotated[str | None, Field(description="Run to evaluate; default: newest.")] = None,
        backend: Backend = None,
        limit: Annotated[int | None, Field(ge=1, description="Preview on N cases.")] = None,
    ) -> Document:
        """Evaluate the tuned model against the best prompt, and return the verdict. Costs money.

        Answers count against the session's budget and the job's own. If it fails, the same call
        continues. It never deploys a model.
        """
        with self._lock:
            resolved = self._confirmed(file, plan_hash, backend).resolved
            tuned, key = run and self.project_run(run), f"compare {plan_hash} {run} {limit}"
            own = resolved.job.evaluate.budget
            most = min(self._left(key), own.usd if own else self.budget)
            bounded = replace(resolved, job=resolved.job.with_evaluation_budget(most))
            requests: list[EvaluationProgress] = []
            with self._spending(key, most, requests):
                comparison = run_comparison(
                    bounded, tuned or None, limit=limit, progress=requests.append
                )
            self._used[key] = comparison.spent_usd or Decimal(0)
            return self._with_budget({**verdict(comparison), "exit_code": comparison.exit_code})

    def cancel(self, run: RunName) -> Document:
        """Cancel a run of this project. What it has cost so far is charged."""
        return dumped(RunView.of(self.project_run(run).cancel()))

    def _confirmed(self, file: str, plan_hash: str, backend: str | None) -> Planned:
        planned = self.planned(file, backend)
        if planned.hash != plan_hash:
            raise Mismatch(
                f"the plan of {file} has changed: its hash is not {plan_hash!r}. Nothing was "
                "launched. Call plan again, review it with the user and pass its plan_hash."
            )
        return planned

    def _left(self, key: str) -> Decimal:
        """Return what is left of the budget for an entry that is counted anew."""
        others = (usd for name, usd in self._used.items() if name != key)
        return max(self.budget - sum(others), Decimal(0))

    @contextmanager
    def _spending(self, key: str, most: Decimal, begun: Sequence[object]) -> Generator[None]:
        """Count an entry with its maximum cost, unless the body is refused before it has begun."""
        left, before = self._left(key), self._used.get(key, Decimal(0))
        if most > left:
            raise OverBudget(
                f"it may cost up to ${cents(most)}, but ${left:f} of this session's "
                f"${self.budget} is left. Nothing was launched. Only the user can raise the "
                "budget: unitune mcp --allow-launch --budget USD."
            )
        self._used[key] = most
        try:
            yield
        except REFUSALS:
            if not begun:
                self._used[key] = before
            raise

    def _with_budget(self, document: Document) -> Document:
        used = sum(self._used.values(), Decimal(0))
        return {**document, "budget_usd": str(self.budget), "budget_used_usd": str(used)}


READING = ("check", "plan", "runs", "show", "comparisons", "decide", "cost", "schema")
LAUNCHING = ("run", "compare", "cancel")
INSTRUCTIONS = (
    "unitune tunes models at vendors or on this machine and compares them with the best prompt. "
    "Call check and plan first, and show the user the findings and the cost. "
)
READ_ONLY = (
    "This server launches nothing. To allow launches, the user starts it with `unitune mcp "
    "--allow-launch --budget USD`."
)
WITH_LAUNCHES = (
    "Before run or compare, ask the user to confirm the plan, then pass its plan_hash. Launches of "
    "this session cost at most ${} together. Never deploy a model unless the user asks for it."
)


def build(root: Path, budget: Decimal | None) -> MCPServer[Any]:
    """Return the server of a folder; without a budget, its tools only read."""
    from mcp.server import MCPServer
    from mcp_types import ToolAnnotations

    tools = ReadingTools(root) if budget is None else LaunchingTools(root, budget)
    more = READ_ONLY if budget is None else WITH_LAUNCHES.format(budget)
    server = MCPServer[Any](
        "unitune", version=__version__, instructions=INSTRUCTIONS + more, log_level="WARNING"
    )
    for name in READING if budget is None else READING + LAUNCHING:
        hints = ToolAnnotations(
            read_only_hint=name in READING,
            destructive_hint=name == "cancel",
            idempotent_hint=True,
            open_world_hint=name in ("show", *LAUNCHING),
        )
        server.add_tool(_explained(getattr(tools, name)), name, annotations=hints)
    return server


def serve(root: Path, budget: Decimal | None) -> None:
    """Serve until standard input closes."""
    build(root, budget).run("stdio")


def _explained(tool: Callable[..., Document]) -> Callable[..., Document]:
    """Return a tool whose errors have the text and the codes of the command line's."""
    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(tool)
    def call(**arguments: Any) -> Document:
        try:
            return tool(**arguments)
        except Exception as error:
            if (cause := first(error)) is None:
                raise
            known = explained(cause, [])
            text = printable(redacted(str(known)))
            raise ToolError(f"{text} ({known.code}, exit code {known.exit_code})") from error

    return call
