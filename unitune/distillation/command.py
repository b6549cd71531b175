"""Implement `unitune data distill`: write training rows from a better model's answers."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unitune.cli.options import JOB_FILE, AllowUnpriced, BudgetUsd, JobFile, Json, Quiet
from unitune.cli.output import Kind, aside, check_output, console, facts, print_json
from unitune.errors import UserError

if TYPE_CHECKING:
    from unitune.distillation.distill import Distillation
    from unitune.distillation.teacher import Teacher, WrittenQuestions

SHOWN_REJECTED = 3
OTHERWISE = (
    "Set a budget (--budget 5, or budget: {usd: 5} under evaluate in the job), or fewer questions "
    "(--limit 20)."
)


TeacherName = Annotated[
    str,
    typer.Option(
        metavar="BACKEND:MODEL",
        help="Teacher: backend and model, or the name of a contender in the job.",
    ),
]
Questions = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Rows without answers, in any format a job reads."),
]
Variants = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Number of new questions for the teacher to write from the training rows.",
    ),
]
Rows = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File for the rows.")]
Prompt = Annotated[
    Literal["zero-shot", "instructed", "few-shot"] | None,
    typer.Option(
        help="Prompt for the teacher (default: instructions and 8 nearest training rows).",
    ),
]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Maximum number of questions.")]
Batch = Annotated[
    bool,
    typer.Option("--batch", help="Use batch requests: within a day, for about half the price."),
]
UseCache = Annotated[
    bool,
    typer.Option("--use-cache", help="Reuse cached answers to the same requests."),
]


def distill(
    file: JobFile = JOB_FILE,
    *,
    teacher: TeacherName,
    output: Rows,
    questions: Questions = None,
    variants: Variants = None,
    prompt: Prompt = None,
    limit: Limit = None,
    batch: Batch = False,
    use_cache: UseCache = False,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Have a better model answer questions, and keep the good answers as rows.

    An answer is kept if it is complete, has the form of the training rows, and passes every scorer
    that needs no expected answer. Questions similar to a test case are left out. If it is
    interrupted, the same command continues. The teacher's own score on the validation rows is
    shown.

    [dim]$ unitune data distill --teacher openai:gpt-4.1 --questions inbox.jsonl -o distilled.jsonl
    $ unitune data distill --teacher openai:gpt-4.1 --variants 200 -o more.jsonl --budget 5
    $ unitune data distill --teacher anthropic:claude-sonnet-4-5 --questions inbox.jsonl -o
    more.jsonl \
--batch --budget 5[/dim]
    """
    from unitune.cli.progress import evaluation_progress, working
    from unitune.distillation.distill import distill as run_distillation
    from unitune.distillation.distill import plan_distillation
    from unitune.distillation.teacher import Teacher, plan_variants, write_variants
    from unitune.evaluate.inference.engine import AnswerOptions, ignore
    from unitune.evaluate.inference.sources import check_batches
    from unitune.job.job import Job
    from unitune.planning.preflight import preflight
    from unitune.render.typography import counted

    if (questions is None) == (variants is None):
        raise UserError(
            "pass either --questions FILE (rows without answers) or --variants N (questions that "
            "the teacher writes)."
        )
    check_output(output, Kind.ROWS, [file, *([questions] if questions else [])])
    job = Job.load(file)
    if budget is not None:
        job = job.with_evaluation_budget(budget)
    with working("reading rows", quiet=quiet or json):
        chosen = Teacher.of(preflight(job), teacher, prompt, allow_unpriced=allow_unpriced)
    if batch:
        check_batches(chosen.resolved.job, deploys=False)
    say = ignore if quiet or json else aside().print
    with evaluation_progress(quiet=quiet or json) as progress:
        options = AnswerOptions(batch=batch, use_cache=use_cache, progress=progress, announce=say)
        given: Path | WrittenQuestions
        if questions is None:
            writing = plan_variants(chosen, variants or 1)
            _confirm(chosen, "questions", writing.most_usd, allow_unpriced=allow_unpriced)
            given = write_variants(writing, options)
        else:
            given = questions
        planned = plan_distillation(chosen, given, limit=limit)
        left_out = [f"{count:,} that {why}" for why, count in planned.questions.left_out.items()]
        also = f" Left out: {', '.join(left_out)}." if left_out else ""
        asked = counted(len(planned.questions.rows), "question")
        say(f"{asked} for {planned.teacher.name}.{also}")
        _confirm(chosen, "answers", planned.most_usd, allow_unpriced=allow_unpriced)
        made = run_distillation(planned, output, options)
    if json:
        print_json(_as_json(made))
    else:
        _show(made)


def _confirm(teacher: Teacher, what: str, most: Decimal | None, *, allow_unpriced: bool) -> None:
    from unitune.cli.consent import confirm_cost
    from unitune.render.typography import dollars

    is_allowed = teacher.is_free or (most is None and allow_unpriced)
    if is_allowed or teacher.resolved.job.evaluate.budget is not None:
        return
    usd = "unknown" if most is None else f"at most {dollars(most)}"
    confirm_cost(f"{what} of the teacher", usd, "Continue?", OTHERWISE)


def _show(made: Distillation) -> None:
    from unitune.render.typography import counted, dollars, percent

    answers = made.rows + len(made.rejected)
    rows = {
        "Rows": f"{made.rows:,} of {counted(answers, 'answer')}, in {made.path}",
        "Teacher": f"{made.teacher}, prompt: {made.prompt}",
    }
    if made.dev_score is not None:
        score = percent(made.dev_score)
        rows["Its score"] = f"{score} ({made.scorer}) on {counted(made.dev_rows, 'validation row')}"
    if made.usd:
        rows["Cost"] = dollars(made.usd)
    if made.rejected:
        reasons = made.reasons.most_common()
        rows["Rejected"] = "; ".join(f"{count:,} {reason}" for reason, count in reasons)
        rows["For example"] = "\n".join(
            f"line {each.line}: {_short(each.answer)}" for each in made.rejected[:SHOWN_REJECTED]
        )
        rows["All of them"] = str(made.folder / "rejected.jsonl")
    rows["Terms"] = _terms(made)
    console().print(facts(rows))


def _short(answer: str, most: int = 60) -> str:
    line = " ".join(answer.split())
    return f"{line[: most - 1]}…" if len(line) > most else line or "(empty)"


def _terms(made: Distillation) -> str:
    if made.terms is None:
        return (
            "unitune does not know the teacher's terms. Read what they allow before you train on "
            "its answers."
        )
    return (
        "The vendor's terms forbid using its answers to build models that compete with its own "
        f"({made.terms.source}, read {made.terms.as_of}). Check whether this applies to you."
    )


def _as_json(made: Distillation) -> dict[str, object]:
    return {
        "rows": made.rows,
        "output": str(made.path),
        "rejected": dict(made.reasons),
        "left_out": made.left_out,
        "teacher": made.teacher,
        "prompt": made.prompt,
        "dev_score": made.dev_score,
        "dev_rows": made.dev_rows,
        "usd": str(made.usd),
        "terms": made.terms and made.terms.model_dump(mode="json"),
        "folder": str(made.folder),
    }
