# ruff: noqa: I001 - names of one module stand together
from .functions import (
    HttpGrader as HttpGrader,
    PythonFunction as PythonFunction,
    RecordedScore as RecordedScore,
    RewardFunction as RewardFunction,
)
from .graders import OpenAIGrader as OpenAIGrader
from .interface import Entry as Entry, Scorer as Scorer
from .json_text import (
    JsonContained as JsonContained,
    JsonEqual as JsonEqual,
    JsonFields as JsonFields,
    JsonSchema as JsonSchema,
    JsonValid as JsonValid,
    ToolCalls as ToolCalls,
)
from .judge import Judge as Judge
from .labels import Choice as Choice, ClassF1 as ClassF1
from .measures import (
    Consistency as Consistency,
    Cost as Cost,
    Latency as Latency,
    Length as Length,
    PassK as PassK,
    ToolErrors as ToolErrors,
    Turns as Turns,
    Unstable as Unstable,
)
from .overlap import (
    Bleu as Bleu,
    Chrf as Chrf,
    Rouge as Rouge,
    SentenceChrf as SentenceChrf,
    TokenF1 as TokenF1,
)
from .row_scorers import RowScorers as RowScorers
from .style import Style as Style
from .text import (
    Contains as Contains,
    EditDistance as EditDistance,
    Exact as Exact,
    FinishReason as FinishReason,
    Numeric as Numeric,
    Regex as Regex,
)
from .trajectory import Trajectory as Trajectory

ENTRIES: dict[str, type[Entry]]
ScorerSpec = Entry
RewardSpec = Scorer
