"""Score each row by its own `scorers`: the assertions of one case.

    {"messages": […], "scorers": ["json_valid",
                                  {"type": "contains", "expected": "Paris"},
                                  {"type": "contains", "any_of": ["rude", "mad"], "negate": true},
                                  {"type": "rouge", "expected": "…", "at_least": 0.75}]}

Code and files are named only in the job and referred to by name, so a row cannot run anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypeVar

from pydantic import JsonValue, PrivateAttr, ValidationError, model_validator

from unitune.documents import Spec
from unitune.errors import DataError, nearest
from unitune.files.validation import part_at, sentence, unknown_key
from unitune.scorers.assertions import Assertion, Entries, Terms
from unitune.scorers.functions import PythonFunction, RecordedScore
from unitune.scorers.interface import Attempt, Case, Entry, Score, Scorer, Setting, leaves
from unitune.scorers.measures import Consistency, Measure
from unitune.scorers.text import Exact
from unitune.text import clip

if TYPE_CHECKING:
    ScorerSpec = Entry  # `unitune.scorers` defines it once all types exist

KEY = "scorers"  # the key of a row that `RowScorers` reads
MOST_NESTED = 5  # nested lists of entries; promptfoo has two

S = TypeVar("S", bound=Spec)


class RowScorers(Scorer):
    """All scorers of the row pass.

    Why: for cases with different requirements, such as a test suite's assertions. A row without
    `scorers` is scored by `default`. It leaves out how many entries pass; the reason names those
    that failed.
    """

    needs_expected: ClassVar[bool] = False
    type: Literal["row_scorers"] = "row_scorers"
    name: str = "row_scorers"
    default: tuple[ScorerSpec, ...] = (Exact(),)
    """Scorers for rows without `scorers`; all must pass."""
    named: tuple[ScorerSpec, ...] = ()
    """Scorers that rows may refer to by name, such as custom functions."""
    _setting: Setting = PrivateAttr(Setting())
    _default: Entries = PrivateAttr(Entries((), Terms()))
    _named: Mapping[str, Entry] = PrivateAttr({})
    _read: dict[str, Entries] = PrivateAttr({})

    @model_validator(mode="after")
    def _only_scorers(self) -> Self:
        if any(isinstance(entry, RowScorers) for entry in (*self.default, *self.named)):
            raise ValueError("row_scorers cannot contain itself")
        if not self.default or any(isinstance(entry, Measure) for entry in self.default):
            raise ValueError("default must be one or more scorers, without measures")
        return self

    @property
    def functions(self) -> tuple[PythonFunction, ...]:
        """Scorers that run the user's code."""
        entries = (*self.default, *self.named)
        return tuple(entry for entry in entries if isinstance(entry, PythonFunction))

    def without_code(self) -> Self:
        """Return a copy with recorded scores instead of the user's functions."""

        def plain(entries: Sequence[Entry]) -> tuple[Entry, ...]:
            return tuple(
                RecordedScore(name=entry.name, key=entry.name)
                if isinstance(entry, PythonFunction)
                else entry
                for entry in entries
            )

        return self.model_copy(update={"default": plain(self.default), "named": plain(self.named)})

    def prepare(self, setting: Setting) -> None:
        self._setting, self._read = setting, {}
        self._named = {entry.name: _ready(entry, setting) for entry in self.named}
        parts = (Assertion(_ready(entry, setting), Terms()) for entry in self.default)
        self._default = Entries(tuple(parts), Terms())

    def material(self, setting: Setting) -> JsonValue:
        entries = (*self.default, *self.named)
        return [
            [entry.version, entry.material(setting) if isinstance(entry, Scorer) else None]
            for entry in entries
        ]

    def asserted(self, case: Case) -> str:
        return self._entries(case).words if KEY in case.content else ""

    def judge(self, attempt: Attempt) -> Score:
        judged = self._entries(attempt.case).judge(attempt)
        return Score(float(judged.holds), "" if judged.holds else f"failed: {judged.why}")

    def refusal(self, case: Case) -> str | None:
        try:
            return self._entries(case).refusal(case)
        except DataError as error:
            return str(error)

    def indulgence(self, case: Case) -> str | None:
        return self._entries(case).indulgence(case)

    def wrong_already(self, attempt: Attempt) -> bool:
        return self._entries(attempt.case).wrong_already(attempt)

    def _entries(self, case: Case) -> Entries:
        value = case.content.get(KEY)
        if value is None:
            return self._default
        written = json.dumps(value, sort_keys=True)
        if written not in self._read:
            self._read[written] = self._list(value, KEY)
        return self._read[written]

    def _list(self, value: JsonValue, at: str, depth: int = 0) -> Entries:
        content = value if isinstance(value, dict) else {KEY: value}
        listed = content.get(KEY)
        if not isinstance(listed, list) or not listed:
            raise DataError(f"`{at}` is {clip(value)} but must be a list of one or more scorers")
        if depth > MOST_NESTED:
            raise DataError(f"`{at}` is nested in more than {MOST_NESTED} lists")
        if unfit := content.keys() - {KEY, "at_least", "weight"}:
            known = "at_least and weight"
            raise DataError(
                f"`{at}` has the key {min(unfit)!r}; a list of scorers allows only {known}"
            )
        parts = [self._entry(item, f"{at}[{index}]", depth) for index, item in enumerate(listed)]
        terms = {key: item for key, item in content.items() if key != KEY}
        return Entries(tuple(parts), _validated(Terms, terms, at))

    def _entry(self, item: JsonValue, at: str, depth: int) -> Assertion | Entries:
        if isinstance(item, list) or (isinstance(item, dict) and KEY in item):
            return self._list(item, at, depth + 1)
        content: JsonValue = {"type": item} if isinstance(item, str) else item
        kind = content.get("type") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(kind, str):
            raise DataError(f"`{at}` is {clip(item)}, which is not a scorer with a type")
        written = {key: value for key, value in content.items() if key in Terms.model_fields}
        options = {key: value for key, value in content.items() if key not in written}
        terms = _validated(Terms, written, at)
        entry = self._scorer(kind, options, at)
        if isinstance(entry, Measure) and terms.at_least is None and terms.at_most is None:
            raise DataError(f"`{at}` measures the {kind} and needs at_least or at_most")
        return Assertion(entry, terms)

    def _scorer(self, kind: str, options: Mapping[str, JsonValue], at: str) -> Entry:
        if kind in self._named and [*options] == ["type"]:
            return self._named[kind]
        if kind == PythonFunction.type_name():
            raise DataError(
                f"`{at}` names code, which is allowed only in a job. Add the function to `named` "
                "of row_scorers in evaluate.scorers and write its name here"
            )
        types = {each.type_name(): each for each in leaves(Entry)}
        unfit = {PythonFunction.type_name(), Consistency.type_name(), self.type_name()}
        if kind in unfit or kind not in types:
            known = sorted({*types, *self._named} - unfit)
            near = nearest(kind, known)
            guess = f" Did you mean {near!r}?" if near else ""
            raise DataError(f"`{at}`: {kind!r} is not a scorer.{guess} Scorers: {', '.join(known)}")
        entry = _validated(types[kind], options, at)
        for path in ("definition", "grader"):
            if isinstance(options.get(path), str):
                why = "names a file, which is allowed only in a job; write its content here"
                raise DataError(f"`{at}.{path}` {why}")
        return _ready(entry, self._setting)


def _ready(entry: Entry, setting: Setting) -> Entry:
    return entry.ready(setting, "") if isinstance(entry, Scorer) else entry


def _validated(model: type[S], content: Mapping[str, JsonValue], at: str) -> S:
    try:
        return model.model_validate(content)
    except ValidationError as failure:
        detail = failure.errors()[0]
        place = ".".join(map(str, (at, *detail["loc"])))
        text = sentence([detail], part_at(model, content, detail["loc"]))
        if detail["type"] == "extra_forbidden":
            text = unknown_key(str(detail["loc"][-1]), [*model.model_fields, *Terms.model_fields])
        raise DataError(f"`{place}` {text.rstrip('.')}") from failure
