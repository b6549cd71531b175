# ruff: noqa: I001 - names of one module stand together
from .backends.protocol import Event as Event, State as State
from .card.card import Card as Card, write_card as write_card
from .data.dataset import Dataset as Dataset
from .data.example import Example as Example, Message as Message
from .data.load import load as load
from .data.privacy.redaction import Redaction as Redaction
from .data.report import DataReport as DataReport
from .decision.decide import decide as decide
from .decision.evidence import Decision as Decision
from .errors import (
    BackendError as BackendError,
    DataError as DataError,
    DuplicateRunError as DuplicateRunError,
    GateNotPassed as GateNotPassed,
    IntegrityError as IntegrityError,
    Interrupted as Interrupted,
    JobError as JobError,
    Leak as Leak,
    LockTimeout as LockTimeout,
    Mismatch as Mismatch,
    MissingExtra as MissingExtra,
    NotFoundError as NotFoundError,
    OverBudget as OverBudget,
    RunFailed as RunFailed,
    UnituneError as UnituneError,
    Unreachable as Unreachable,
    UnreadableRecord as UnreadableRecord,
    UnstableJudge as UnstableJudge,
    Unsupported as Unsupported,
    UserError as UserError,
)
from .evaluate.compare import compare as compare
from .evaluate.diff import ComparisonDiff as ComparisonDiff, diff as diff
from .evaluate.history import comparisons as comparisons, find_comparison as find_comparison
from .curve.measuring import learning_curve as learning_curve
from .curve.documents import LearningCurve as LearningCurve
from .evaluate.readiness import check as check
from .evaluate.results import Comparison as Comparison
from .findings import Finding as Finding
from .job.contenders import (
    FewShot as FewShot,
    Instructed as Instructed,
    Model as Model,
    Recorded as Recorded,
    Server as Server,
    Tuned as Tuned,
    ZeroShot as ZeroShot,
)
from .job.evaluate import (
    Constraint as Constraint,
    Economics as Economics,
    Evaluate as Evaluate,
    Gate as Gate,
    TokenPrice as TokenPrice,
)
from .job.data import Columns as Columns, Data as Data, Template as Template
from .job.job import Job as Job
from .job.prices import PriceEntry as PriceEntry
from .job.tuning import (
    Alternative as Alternative,
    Budget as Budget,
    EarlyStopping as EarlyStopping,
    Lora as Lora,
    Preference as Preference,
    Reward as Reward,
    TrainingBudget as TrainingBudget,
    Tuning as Tuning,
    Usage as Usage,
)
from .ledger.model_versions import AliasMove as AliasMove, ModelVersion as ModelVersion
from .model_registry.verify import Verification as Verification, verify as verify
from .model_registry.versions import (
    RegisteredModel as RegisteredModel,
    find_registered_model as find_registered_model,
    promote as promote,
    register as register,
    registered_models as registered_models,
    remove_alias as remove_alias,
    rollback as rollback,
)
from .models import Reply as Reply, Request as Request, Start as Start, TunedModel as TunedModel
from .planning.plan import Plan as Plan, plan as plan
from .publish.hub import Pushed as Pushed, push as push
from .report.files import write_report as write_report
from .report.tracking import track as track
from .run.deploying import deploy as deploy
from .run.deployment import Deployment as Deployment, deployments as deployments
from .run.handle import Run as Run
from .run.lineage import Lineage as Lineage
from .run.model_client import ModelClient as ModelClient
from .run.run import find_run as find_run, launch as launch, runs as runs
from .run.sweep import launch_sweep as launch_sweep
from .scorers.functions import PythonFunction as PythonFunction, RecordedScore as RecordedScore
from .scorers.graders import OpenAIGrader as OpenAIGrader
from .scorers.json_text import (
    JsonEqual as JsonEqual,
    JsonFields as JsonFields,
    JsonSchema as JsonSchema,
    JsonValid as JsonValid,
    ToolCalls as ToolCalls,
)
from .scorers.labels import Choice as Choice, ClassF1 as ClassF1
from .scorers.measures import (
    Consistency as Consistency,
    Cost as Cost,
    Latency as Latency,
    Length as Length,
)
from .scorers.overlap import (
    Bleu as Bleu,
    Chrf as Chrf,
    Rouge as Rouge,
    SentenceChrf as SentenceChrf,
    TokenF1 as TokenF1,
)
from .scorers.text import (
    Contains as Contains,
    EditDistance as EditDistance,
    Exact as Exact,
    Numeric as Numeric,
    Regex as Regex,
)
from .tco.documents import TotalCost as TotalCost
from .tco.total_cost import total_cost as total_cost

__version__: str
