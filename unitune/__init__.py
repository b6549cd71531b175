"""One fine-tuning job for every backend: planned, launched once, and proven against the prompt.

    job = Job(name="triage", model="smollm2-135m-instruct", backend="local",
              data=Data(train="train.jsonl", test="test.jsonl"))
    print(plan(job))
    run = launch(job).wait()
    print(run.model.ask("Where is my parcel?"))
    print(compare(job, run).verdict)

Everything public is imported on first use, so that ``import unitune`` stays fast and needs no
vendor SDK and no torch. All functions work where an event loop is running, as in a notebook.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unitune.backends.protocol import Event, State
    from unitune.card.card import Card, write_card
    from unitune.data.dataset import Dataset
    from unitune.data.example import Example, Message
    from unitune.data.load import load
    from unitune.data.privacy.redaction import Redaction
    from unitune.data.report import DataReport
    from unitune.decision.decide import decide
    from unitune.decision.evidence import Decision
    from unitune.errors import (
        BackendError,
        DataError,
        DuplicateRunError,
        GateNotPassed,
        IntegrityError,
        Interrupted,
        JobError,
        Leak,
        LockTimeout,
        Mismatch,
        MissingExtra,
        NotFoundError,
        OverBudget,
        RunFailed,
        UnituneError,
        Unreachable,
        UnreadableRecord,
        Unsupported,
        UserError,
    )
    from unitune.evaluate.compare import compare
    from unitune.evaluate.diff import ComparisonDiff, diff
    from unitune.evaluate.history import comparisons, find_comparison
    from unitune.evaluate.learning_curve import learning_curve
    from unitune.evaluate.learning_curve_document import LearningCurve
    from unitune.evaluate.readiness import check
    from unitune.evaluate.results import Comparison
    from unitune.findings import Finding
    from unitune.job.contenders import FewShot, Instructed, Model, Recorded, Server, Tuned, ZeroShot
    from unitune.job.evaluate import Constraint, Economics, Evaluate, Gate, TokenPrice
    from unitune.job.job import Job
    from unitune.job.prices import PriceEntry
    from unitune.job.tuning import (
        Alternative,
        Budget,
        Columns,
        Data,
        EarlyStopping,
        Lora,
        Preference,
        Reward,
        Template,
        TrainingBudget,
        Tuning,
        Usage,
    )
    from unitune.ledger.model_versions import AliasMove, ModelVersion
    from unitune.model_registry.verify import Verification, verify
    from unitune.model_registry.versions import (
        RegisteredModel,
        find_registered_model,
        promote,
        register,
        registered_models,
        remove_alias,
        rollback,
    )
    from unitune.models import Reply, Request, Start, TunedModel
    from unitune.planning.plan import Plan, plan
    from unitune.publish.hub import Pushed, push
    from unitune.report.files import write_report
    from unitune.report.tracking import track
    from unitune.run.deploying import deploy
    from unitune.run.deployment import Deployment, deployments
    from unitune.run.handle import Run
    from unitune.run.lineage import Lineage
    from unitune.run.model_client import ModelClient
    from unitune.run.run import find_run, launch, runs
    from unitune.run.sweep import launch_sweep
    from unitune.scorers.functions import PythonFunction, RecordedScore
    from unitune.scorers.graders import OpenAIGrader
    from unitune.scorers.json_text import JsonEqual, JsonFields, JsonSchema, JsonValid, ToolCalls
    from unitune.scorers.labels import Choice, ClassF1
    from unitune.scorers.measures import Consistency, Cost, Latency, Length
    from unitune.scorers.overlap import Bleu, Chrf, Rouge, SentenceChrf, TokenF1
    from unitune.scorers.text import Contains, EditDistance, Exact, Numeric, Regex
    from unitune.tco.documents import TotalCost
    from unitune.tco.total_cost import total_cost

__version__ = "0.1.0"

_NAMES = {
    "unitune.backends.protocol": ("Event", "State"),
    "unitune.card.card": ("Card", "write_card"),
    "unitune.data.report": ("DataReport",),
    "unitune.data.dataset": ("Dataset",),
    "unitune.data.example": ("Example", "Message"),
    "unitune.data.load": ("load",),
    "unitune.data.privacy.redaction": ("Redaction",),
    "unitune.errors": (
        "BackendError",
        "DataError",
        "DuplicateRunError",
        "GateNotPassed",
        "IntegrityError",
        "Interrupted",
        "JobError",
        "Leak",
        "LockTimeout",
        "Mismatch",
        "MissingExtra",
        "NotFoundError",
        "OverBudget",
        "RunFailed",
        "UnituneError",
        "Unreachable",
        "UnreadableRecord",
        "Unsupported",
        "UserError",
    ),
    "unitune.decision.decide": ("decide",),
    "unitune.decision.evidence": ("Decision",),
    "unitune.evaluate.compare": ("compare",),
    "unitune.evaluate.diff": ("ComparisonDiff", "diff"),
    "unitune.evaluate.history": ("comparisons", "find_comparison"),
    "unitune.evaluate.learning_curve": ("learning_curve",),
    "unitune.evaluate.learning_curve_document": ("LearningCurve",),
    "unitune.evaluate.readiness": ("check",),
    "unitune.evaluate.results": ("Comparison",),
    "unitune.findings": ("Finding",),
    "unitune.job.contenders": (
        "FewShot",
        "Instructed",
        "Model",
        "Recorded",
        "Server",
        "Tuned",
        "ZeroShot",
    ),
    "unitune.job.evaluate": ("Constraint", "Economics", "Evaluate", "Gate", "TokenPrice"),
    "unitune.job.job": ("Job",),
    "unitune.job.prices": ("PriceEntry",),
    "unitune.job.tuning": (
        "Alternative",
        "Budget",
        "Columns",
        "Data",
        "EarlyStopping",
        "Lora",
        "Preference",
        "Reward",
        "Template",
        "TrainingBudget",
        "Tuning",
        "Usage",
    ),
    "unitune.ledger.model_versions": ("AliasMove", "ModelVersion"),
    "unitune.model_registry.verify": ("Verification", "verify"),
    "unitune.model_registry.versions": (
        "RegisteredModel",
        "find_registered_model",
        "promote",
        "register",
        "registered_models",
        "remove_alias",
        "rollback",
    ),
    "unitune.models": ("Reply", "Request", "Start", "TunedModel"),
    "unitune.planning.plan": ("Plan", "plan"),
    "unitune.publish.hub": ("Pushed", "push"),
    "unitune.report.files": ("write_report",),
    "unitune.report.tracking": ("track",),
    "unitune.run.deploying": ("deploy",),
    "unitune.run.deployment": ("Deployment", "deployments"),
    "unitune.run.handle": ("Run",),
    "unitune.run.lineage": ("Lineage",),
    "unitune.run.model_client": ("ModelClient",),
    "unitune.run.run": ("find_run", "launch", "runs"),
    "unitune.run.sweep": ("launch_sweep",),
    "unitune.scorers.functions": ("PythonFunction", "RecordedScore"),
    "unitune.scorers.graders": ("OpenAIGrader",),
    "unitune.scorers.json_text": (
        "JsonEqual",
        "JsonFields",
        "JsonSchema",
        "JsonValid",
        "ToolCalls",
    ),
    "unitune.scorers.labels": ("Choice", "ClassF1"),
    "unitune.scorers.measures": ("Consistency", "Cost", "Latency", "Length"),
    "unitune.scorers.overlap": ("Bleu", "Chrf", "Rouge", "SentenceChrf", "TokenF1"),
    "unitune.scorers.text": ("Contains", "EditDistance", "Exact", "Numeric", "Regex"),
    "unitune.tco.documents": ("TotalCost",),
    "unitune.tco.total_cost": ("total_cost",),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = [
    "AliasMove",
    "Alternative",
    "BackendError",
    "Bleu",
    "Budget",
    "Card",
    "Choice",
    "Chrf",
    "ClassF1",
    "Columns",
    "Comparison",
    "ComparisonDiff",
    "Consistency",
    "Constraint",
    "Contains",
    "Cost",
    "Data",
    "DataError",
    "DataReport",
    "Dataset",
    "Decision",
    "Deployment",
    "DuplicateRunError",
    "EarlyStopping",
    "Economics",
    "EditDistance",
    "Evaluate",
    "Event",
    "Exact",
    "Example",
    "FewShot",
    "Finding",
    "Gate",
    "GateNotPassed",
    "Instructed",
    "IntegrityError",
    "Interrupted",
    "Job",
    "JobError",
    "JsonEqual",
    "JsonFields",
    "JsonSchema",
    "JsonValid",
    "Latency",
    "Leak",
    "LearningCurve",
    "Length",
    "Lineage",
    "LockTimeout",
    "Lora",
    "Message",
    "Mismatch",
    "MissingExtra",
    "Model",
    "ModelClient",
    "ModelVersion",
    "NotFoundError",
    "Numeric",
    "OpenAIGrader",
    "OverBudget",
    "Plan",
    "Preference",
    "PriceEntry",
    "Pushed",
    "PythonFunction",
    "Recorded",
    "RecordedScore",
    "Redaction",
    "Regex",
    "RegisteredModel",
    "Reply",
    "Request",
    "Reward",
    "Rouge",
    "Run",
    "RunFailed",
    "SentenceChrf",
    "Server",
    "Start",
    "State",
    "Template",
    "TokenF1",
    "TokenPrice",
    "ToolCalls",
    "TotalCost",
    "TrainingBudget",
    "Tuned",
    "TunedModel",
    "Tuning",
    "UnituneError",
    "Unreachable",
    "UnreadableRecord",
    "Unsupported",
    "Usage",
    "UserError",
    "Verification",
    "ZeroShot",
    "check",
    "compare",
    "comparisons",
    "decide",
    "deploy",
    "deployments",
    "diff",
    "find_comparison",
    "find_registered_model",
    "find_run",
    "launch",
    "launch_sweep",
    "learning_curve",
    "load",
    "plan",
    "promote",
    "push",
    "register",
    "registered_models",
    "remove_alias",
    "rollback",
    "runs",
    "total_cost",
    "track",
    "verify",
    "write_card",
    "write_report",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'unitune' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
