# ruff: noqa: I001 - names of one module stand together
from . import errors as errors, registry as registry, scorers as scorers, types as types
from .card.card import write_card as write_card
from .client import Client as Client
from .data.example import Example as Example, Message as Message
from .data.load import load as load
from .data.privacy.redaction import Redaction as Redaction
from .decision.decide import decide as decide
from .errors import GateNotPassed as GateNotPassed, UnituneError as UnituneError
from .evaluate.compare import compare as compare
from .evaluate.documents.diff import diff as diff
from .evaluate.documents.history import comparisons as comparisons
from .evaluate.documents.history import find_comparison as find_comparison
from .curve.measuring import learning_curve as learning_curve
from .evaluate.readiness import check as check
from .evaluate.documents.results import Comparison as Comparison
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
from .job.dialogue import Dialogue as Dialogue
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
from .models import Request as Request
from .planning.plan import plan as plan
from .publish import push as push
from .report.files import write_report as write_report
from .report.tracking import track as track
from .run.deploying import deploy as deploy
from .run.deployment import deployments as deployments
from .run.handle import Run as Run
from .run.run import find_run as find_run, launch as launch, runs as runs
from .run.run import launch_sweep as launch_sweep
from .ownership.total_cost import total_cost as total_cost

__version__: str
