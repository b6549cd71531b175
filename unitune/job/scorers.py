"""What counts as a right answer, as a job says it: one frozen specification for each scorer.

`ScorerSpec` is their union. What a scorer does, why, and what it leaves out stands with its
function in `unitune.evaluate.scorers`; nothing here scores. Those of a case say right or wrong, or
give a share from 0 to 1; those of all cases (`CorpusSpec`) are more than a mean over cases;
measures (`MeasureSpec`) are no quality, and no verdict rests on them.

`version` of a class is raised when the same options begin to give other scores, so that a stored
baseline shows it (`unitune.evaluate.scorers.scorer_fingerprint`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, JsonValue, field_validator, model_validator

from unitune.job.graders import Grader, code_in
from unitune.security.addresses import Address, NotAnAddress, VariableName, as_origin
from unitune.security.spec import Typed, from_name
from unitune.workspace import yaml_file

Occurrence: TypeAlias = Literal["only", "first", "last"]
"""Which of several findings in a text is the answer; only: several different ones are none."""


EMBEDDINGS_URL = "https://api.openai.com/v1"
EMBEDDINGS_KEY = "OPENAI_API_KEY"
"""The one key that needs no permission to be sent to `EMBEDDINGS_URL`: it is that vendor's."""


class Scored(Typed):
    """What all scorers share."""

    version: ClassVar[int] = 1


class Exact(Scored):
    """The answer equals the expected one."""

    type: Literal["exact"] = "exact"
    name: str = "exact"
    ignore_case: bool = False
    """Compare without regard to case."""


class Contains(Scored):
    """The expected text stands somewhere in the answer."""

    type: Literal["contains"] = "contains"
    name: str = "contains"
    ignore_case: bool = False
    """Compare without regard to case."""


class Regex(Scored):
    """The pattern is found in the answer."""

    type: Literal["regex"] = "regex"
    name: str = "regex"
    pattern: str
    """Python regular expression, searched anywhere in the answer."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        yaml_file.check_regex(pattern)
        return pattern


class Labelled(Scored):
    """A scorer that looks for one of some labels."""

    options: tuple[str, ...] | None = None
    """The labels, such as [A, B, C, D]; by default the distinct answers of train."""
    ignore_case: bool = True
    """Find labels without regard to case."""
    take: Occurrence = "only"
    """Which label counts where the answer names several; only: none does."""

    @field_validator("options")
    @classmethod
    def _labels(cls, options: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if options is not None and (len(options) < 2 or not all(map(str.strip, options))):
            raise ValueError("options are two labels or more, none of them empty")
        return options


class Choice(Labelled):
    """The answer names the expected one of some labels."""

    type: Literal["choice"] = "choice"
    name: str = "choice"


class Numeric(Scored):
    """The number in the answer is the expected one, within a tolerance."""

    type: Literal["numeric"] = "numeric"
    name: str = "numeric"
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Largest difference that is still right."""
    relative: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Likewise as a share of the expected number; the larger of the two holds."""
    take: Literal["first", "last"] = "last"
    """Which number of the text is the answer."""
    decimal: Literal["point", "comma"] = "point"
    """How fractions are written: 1,234.5 or 1.234,5."""


class JsonValid(Scored):
    """The answer is one JSON value."""

    type: Literal["json_valid"] = "json_valid"
    name: str = "json_valid"


class JsonEqual(Scored):
    """The answer is JSON equal to the expected JSON, whatever its spacing and key order."""

    type: Literal["json_equal"] = "json_equal"
    name: str = "json_equal"


class JsonSchema(Scored):
    """The answer is JSON that a JSON Schema allows."""

    type: Literal["json_schema"] = "json_schema"
    name: str = "json_schema"
    definition: dict[str, JsonValue] | str
    """The schema itself, or the path of a JSON file that holds it."""


class ToolCalls(Scored):
    """The answer calls the expected tools with the expected arguments."""

    type: Literal["tool_calls"] = "tool_calls"
    name: str = "tool_calls"
    ordered: bool = False
    """Whether the order of several calls counts."""
    arguments: bool = True
    """Whether arguments are compared; else names alone."""


class TokenF1(Scored):
    """Share of words in common with the expected answer, as SQuAD counts it."""

    type: Literal["token_f1"] = "token_f1"
    name: str = "token_f1"


class JsonFields(Scored):
    """Share of the fields of the expected JSON that are right."""

    type: Literal["json_fields"] = "json_fields"
    name: str = "json_fields"


class EditDistance(Scored):
    """Similarity by the fewest characters to insert, delete or replace."""

    type: Literal["edit_distance"] = "edit_distance"
    name: str = "edit_distance"
    ignore_case: bool = False
    """Compare without regard to case."""


class Rouge(Scored):
    """Overlap in words, word pairs or the longest common subsequence."""

    type: Literal["rouge"] = "rouge"
    name: str = "rouge"
    variant: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    """Single words, pairs of words, or words in order."""


class SentenceChrf(Scored):
    """Overlap in runs of characters, case by case."""

    type: Literal["sentence_chrf"] = "sentence_chrf"
    name: str = "sentence_chrf"


class Embedding(Scored):
    """Cosine similarity of embeddings, from any OpenAI-compatible endpoint."""

    type: Literal["embedding"] = "embedding"
    name: str = "embedding"
    base_url: Address = EMBEDDINGS_URL
    """Where ``/embeddings`` is asked; answers and expected answers are sent there."""
    model: str
    """The endpoint's name of the embedding model."""
    api_key_variable: VariableName | None = Field(
        default_factory=lambda given: _own_key(str(given.get("base_url")))
    )
    """Environment variable that holds the key; the user must have allowed it for another
    `base_url` than the default (`unitune keys allow`), which gets none unless it is named."""


def _own_key(url: str) -> str | None:
    """Return the variable of the key that an embeddings endpoint gets unless the job says."""
    try:
        return EMBEDDINGS_KEY if as_origin(url) == as_origin(EMBEDDINGS_URL) else None
    except NotAnAddress:
        return None


class ClassF1(Labelled):
    """F1 over classes, from all cases together, with the confusion matrix."""

    type: Literal["class_f1"] = "class_f1"
    name: str = "class_f1"
    average: Literal["macro", "micro"] = "macro"
    """macro: every class counts the same. micro: every case does."""


class Bleu(Scored):
    """BLEU over all cases, by sacrebleu."""

    type: Literal["bleu"] = "bleu"
    name: str = "bleu"
    tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """sacrebleu's tokenizer; 13a is its default."""
    ignore_case: bool = False
    """Compare without regard to case."""


class Chrf(Scored):
    """chrF over all cases, by sacrebleu."""

    type: Literal["chrf"] = "chrf"
    name: str = "chrf"
    word_order: Literal[0, 2] = 0
    """0: chrF, characters alone. 2: chrF++, words and pairs of words as well."""


class PythonFunction(Scored):
    """A function of yours scores: ``def f(answer, case)``."""

    type: Literal["python"] = "python"
    name: str = "python"
    function: Annotated[str, Field(pattern=r"^[^:]+:[A-Za-z_]\w*$")]
    """``checks.py:polite``, a file from the job's folder, or ``package.module:polite``."""


class RecordedScore(Scored):
    """The score that another tool gave to a recorded answer, kept beside it."""

    type: Literal["recorded_score"] = "recorded_score"
    name: str = "recorded_score"
    key: str
    """Which of the answer's `scores`, such as `match` or ``acc,none``."""


class OpenAIGrader(Scored):
    """A grader object of OpenAI, as it is."""

    type: Literal["grader"] = "grader"
    name: str = "grader"
    grader: Grader | str
    """The object, or the path of a JSON file that holds it."""
    run_code: bool = False
    """Whether a grader of type python may run its source in this process, with your rights."""

    @model_validator(mode="after")
    def _code_is_asked_for(self) -> Self:
        if not isinstance(self.grader, str):
            self.check_code(self.grader)
        return self

    def check_code(self, grader: Grader) -> None:
        """Raise ValueError when a grader would run code that nobody asked to be run."""
        if not self.run_code and code_in(grader):
            raise ValueError(
                "a grader of type python runs its source in this process, with your rights. "
                "Read it, and say `run_code: true` beside `grader`"
            )


class Length(Scored):
    """How long the answer is."""

    type: Literal["length"] = "length"
    name: str = "length"
    unit: Literal["characters", "words", "tokens"] = "words"
    """tokens: as the backend counted them."""


class Latency(Scored):
    """Seconds from asking to the whole answer."""

    type: Literal["latency"] = "latency"
    name: str = "latency"


class Cost(Scored):
    """US dollars of an answer, from its tokens and `evaluate.prices`."""

    type: Literal["cost"] = "cost"
    name: str = "cost"


class Consistency(Scored):
    """How often repeats of one case give the same answer."""

    type: Literal["consistency"] = "consistency"
    name: str = "consistency"


MeasureSpec: TypeAlias = Length | Latency | Cost | Consistency
"""What is told of answers beside their quality; no verdict rests on it."""
MEASURES = (Length, Latency, Cost, Consistency)
RIGHT_OR_WRONG = (
    Exact,
    Contains,
    Regex,
    Choice,
    Numeric,
    JsonValid,
    JsonEqual,
    JsonSchema,
    ToolCalls,
)
"""Scorers that know nothing between right and wrong, whatever their options."""

CaseSpec: TypeAlias = (
    Exact
    | Contains
    | Regex
    | Choice
    | Numeric
    | JsonValid
    | JsonEqual
    | JsonSchema
    | ToolCalls
    | TokenF1
    | JsonFields
    | EditDistance
    | Rouge
    | SentenceChrf
    | Embedding
    | PythonFunction
    | RecordedScore
    | OpenAIGrader
)
"""Scorers whose score over all cases is the mean over cases."""
CorpusSpec: TypeAlias = ClassF1 | Bleu | Chrf
"""Scorers whose score over all cases is not."""
QualitySpec: TypeAlias = CaseSpec | CorpusSpec
"""Everything that a verdict may rest on."""

_BY_TYPE = Annotated[QualitySpec | MeasureSpec, Field(discriminator="type")]
ScorerSpec = Annotated[_BY_TYPE, BeforeValidator(from_name, json_schema_input_type=str | _BY_TYPE)]
