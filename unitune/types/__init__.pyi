# ruff: noqa: I001 - names of one module stand together
from unitune.backends.protocol import Event as Event, State as State
from unitune.card.card import Card as Card
from unitune.curve.documents import LearningCurve as LearningCurve
from unitune.data.dataset import Dataset as Dataset
from unitune.data.report import DataReport as DataReport
from unitune.decision.evidence import Decision as Decision
from unitune.evaluate.documents.diff import ComparisonDiff as ComparisonDiff
from unitune.findings import Finding as Finding
from unitune.models import Reply as Reply, Start as Start, TunedModel as TunedModel
from unitune.planning.plan import Plan as Plan
from unitune.publish import Pushed as Pushed
from unitune.run.deployment import Deployment as Deployment
from unitune.ledger.finding import Lineage as Lineage
from unitune.run.model_client import ModelClient as ModelClient
from unitune.ownership.serving import TotalCost as TotalCost
