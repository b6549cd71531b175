"""Score answers: every scorer is a class behind one interface (`interface`).

    module       scorers                                    what is compared
    text         exact, contains, regex, edit_distance,     texts, numbers, and why the answer
                 numeric, finish_reason                     ended
    labels       choice, class_f1                           the label that a text names
    json_text    json_valid, json_equal, json_fields,       strict JSON; names and arguments
                 json_schema, json_contained, tool_calls    of calls
    overlap      token_f1, rouge, sentence_chrf, chrf,      shared words and characters
                 bleu
    functions    python, recorded_score                     a user's function; another tool's
                                                            score
    row_scorers  row_scorers                                scorers named in each row
    trajectory   trajectory                                 the calls and answer of a dialogue
    graders      grader                                     OpenAI's grader objects
    judge        judge                                      a language model's judgement
    measures     length, latency, cost, consistency,        no quality; decide nothing
                 pass_k, unstable, turns, tool_errors
    style        style                                      the style of the training answers
    rewards      reward_function, http                      groups of answers, in rft only

Every module here is read when the package is imported, and each scorer is in its namespace. The
stub ``__init__.pyi`` lists them for type checkers.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field

from unitune.documents import from_name, is_short
from unitune.scorers.interface import Entry, Scorer, leaves
from unitune.scorers.row_scorers import RowScorers
from unitune.scorers.trajectory import Trajectory

for _module in iter_modules(__path__):
    if _module.name != "formulas":  # imports numpy, so it is imported on use
        import_module(f"{__name__}.{_module.name}")

_ALL = leaves(Entry)
ENTRIES: dict[str, type[Entry]] = {  # entries of a job's `scorers` by type
    entry.type_name(): entry for entry in _ALL if not entry.grades_groups
}

if TYPE_CHECKING:
    ScorerSpec = Entry
    RewardSpec = Scorer
else:

    def _by_type(entries: Iterable[type[Entry]]) -> Any:
        kinds = tuple(entries)
        by_type = Annotated[Union[kinds], Field(discriminator="type")]  # noqa: UP007
        names = Literal[tuple(sorted(each.type_name() for each in kinds if is_short(each)))]
        return Annotated[
            by_type, BeforeValidator(from_name, json_schema_input_type=names | by_type)
        ]

    ScorerSpec = _by_type(ENTRIES.values())
    RewardSpec = _by_type(each for each in _ALL if issubclass(each, Scorer))
    for _model in (RowScorers, Trajectory):  # they contain scorers themselves
        _model.model_rebuild(_types_namespace={"ScorerSpec": ScorerSpec})

_NAMES = {kind.__name__: kind for kind in _ALL}
globals().update(_NAMES)
__all__ = ["ENTRIES", "Entry", "RewardSpec", "Scorer", "ScorerSpec"]
__all__ += list(_NAMES)  # pyright: ignore[reportUnsupportedDunderAll]
