"""Tools that read: their results are the documents that the commands print with ``--json``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import BaseModel, Field

from unitune.cli.job_files import DocumentName, document_schema
from unitune.cli.plan import plan_single
from unitune.cli.watch import RunView
from unitune.data.example import digest, digest_all
from unitune.data.load import Files
from unitune.decision.decide import measure_and_conclude, resolve
from unitune.decision.measuring import Choices
from unitune.errors import NotFoundError, UserError
from unitune.evaluate.documents.diff import diff
from unitune.evaluate.documents.history import comparison_listing, find_comparison
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.inference.engine import AnswerOptions, ignore
from unitune.evaluate.readiness import check as check_file
from unitune.job.contenders import NEWEST
from unitune.job.data import FilePurpose
from unitune.job.files import place_files
from unitune.job.job import Job
from unitune.ownership.total_cost import total_costs
from unitune.planning import saved
from unitune.planning.plan import Plan
from unitune.planning.preflight import ResolvedJob, preflight
from unitune.run.run import Run, find_run, runs

Document: TypeAlias = dict[str, Any]
File = Annotated[str, Field(description="Path of the job file, inside the project folder.")]
Backend = Annotated[str | None, Field(description="Backend to use instead of the job's.")]
RunName = Annotated[str, Field(description="Id of a run, its first letters, or newest.")]
Requests = Annotated[int | None, Field(ge=0, description="Requests per month.")]
JOB = "unitune.yaml"
PURPOSES: tuple[FilePurpose, ...] = ("train", "validation", "test")
SHOWN = 20  # newest runs or comparisons of a list


class Planned(NamedTuple):
    """A plan, with the hash of everything that a launch or comparison by it depends on."""

    resolved: ResolvedJob
    plan: Plan
    hash: str


def dumped(document: BaseModel) -> Document:
    """Return a document as its command prints it."""
    return document.model_dump(mode="json")


class ReadingTools:
    """Tools of one project folder; their docstrings are the descriptions that agents read."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def inside(self, name: str, folder: Path | None = None) -> Path:
        """Return a path inside the project folder, links resolved; raise UserError for another."""
        path = (folder or self.root) / name
        if not path.resolve().is_relative_to(self.root):
            raise UserError(f"{name!r} is outside the project folder {self.root}.")
        return path

    def job(self, file: str, backend: str | None = None) -> Job:
        """Load a job file whose files are all inside the project folder."""
        path = self.inside(file)
        job = Job.load(path).with_backend(backend)
        place_files(
            job.model_dump(mode="json", exclude_defaults=True),
            path.parent,
            lambda name: str(self.inside(name, path.parent)),
        )
        for purpose in PURPOSES:
            for name in Files.of(job, purpose).paths:  # a pattern may find links
                self.inside(name)
        return job

    def planned(self, file: str, backend: str | None) -> Planned:
        """Plan the current content of a job file."""
        resolved = preflight(self.job(file, backend))
        plan, test = plan_single(resolved), resolved.splits.test
        made = plan.estimate
        parts = [
            plan.backend,
            plan.bound and plan.bound.model_dump(mode="json"),
            saved.prices_of(plan),
            [
                str(usd and usd.high)
                for usd in (made and made.launch_usd, made and made.evaluation_usd)
            ],
            digest_all(case.case_hash for case in test) if test else None,
        ]
        return Planned(resolved, plan, digest([parts]))

    def project_run(self, name: str) -> Run:
        """Return a run of this project."""
        run = find_run(name)
        own = [each.id for each in runs()]
        if run.id not in own:
            raise NotFoundError("run", name, own[:SHOWN], "It belongs to another project.")
        return run

    def check(self, file: File = JOB) -> Document:
        """Check a job and its data, or one data file: errors, warnings and rows to review."""
        path = self.inside(file)
        if path.suffix in (".yaml", ".yml"):
            self.job(file)
        return dumped(check_file(path))

    def plan(self, file: File = JOB, backend: Backend = None) -> Document:
        """Plan a job: findings, cost range, time and memory. Starts nothing and calls no vendor.

        The result's `plan_hash` confirms this plan in `run` and `compare`. Show the user the cost
        before you launch.
        """
        planned = self.planned(file, backend)
        return {"plan_hash": planned.hash, **dumped(planned.plan)}

    def runs(self, limit: Annotated[int, Field(ge=1, le=200)] = SHOWN) -> Document:
        """List the newest runs of this project."""
        views = [dumped(RunView.of(run)) for run in runs(limit)]
        return {"schema_version": 1, "runs": views}

    def show(self, run: RunName = NEWEST) -> Document:
        """Show the current state of a run, its error, cost and tuned model."""
        return dumped(RunView.of(self.project_run(run).refresh()))

    def comparisons(self, first: str | None = None, second: str | None = None) -> Document:
        """List comparisons; show one (its id or newest); or show what changed between two."""
        if first is None:
            listed = comparison_listing(SHOWN).comparisons
            return {"schema_version": 1, "comparisons": [verdict(each) for each in listed]}
        then = find_comparison(first)
        return verdict(then) if second is None else dumped(diff(then, find_comparison(second)))

    def decide(
        self,
        file: File = JOB,
        goal: Annotated[float | None, Field(ge=0, le=1, description="Score that suffices.")] = None,
        requests: Requests = None,
    ) -> Document:
        """Recommend tuning or prompting by what is known so far. Measures nothing."""
        choices = Choices(
            points=3,
            seeds=3,
            requests_month=requests,
            budget=None,
            launch=lambda _: [],
            agree=lambda _, __: None,
            answers=AnswerOptions(),
            shown=lambda: nullcontext(ignore),
            goal=goal,
            file=file,
        )
        return dumped(measure_and_conclude(resolve(self.job(file), []), choices, measure=False))

    def cost(
        self,
        file: File = JOB,
        backends: Annotated[tuple[str, ...], Field(description="Default: the job's.")] = (),
        requests: Requests = None,
    ) -> Document:
        """Return the total cost of ownership, and the volume at which tuning pays off."""
        job = self.job(file)
        names = backends or (job.backend,)
        return dumped(total_costs(job, names, requests_month=requests, only_launchable=False))

    def schema(self, name: DocumentName) -> Document:
        """Return the JSON Schema of a document: job, plan, run, verdict, cost etc."""
        return document_schema(name)


def verdict(comparison: Comparison) -> Document:
    """Return a comparison as in ``verdict.json``, without its cases."""
    return comparison.model_dump(mode="json", exclude={"cases"})
