"""What counts as a right answer: every scorer behind one interface.

    module       scorers                                    what is compared
    text         exact, contains, regex, edit_distance      texts as they stand
    labels       choice                                     the label that a text names
    numbers      numeric                                    the number that a text holds
    json_text    json_valid, json_equal, json_fields,       strict JSON
                 json_schema
    tools        tool_calls                                 names and arguments of calls
    overlap      token_f1, rouge, sentence_chrf             words and characters in common
    embeddings   embedding                                  nearness in an embedding model
    classes      class_f1                                   classes, over all cases
    corpus       bleu, chrf                                 n-grams, over all cases
    functions    python                                     a function of the user's
    recorded     recorded_score                             what another tool gave
    graders      grader                                     OpenAI's grader objects
    measures     length, latency, cost, consistency         no quality; decide nothing

Each scorer's docstring says why it is there and what it leaves out. `interface` has the interface,
`sums` what resampling adds up, `build` the table, `expected` the refusal of cases that cannot be
found right and of scorers that find nothing wrong, `fingerprint` what tells a changed scorer. A
case without an answer is no business of a scorer: it scores 0 and is counted as an error.

Not here: judges, and what contenders forget beside the task (`unitune.evaluate.retention`).
"""

from __future__ import annotations

from unitune.evaluate.scorers.build import build
from unitune.evaluate.scorers.expected import check_expected, check_telling
from unitune.evaluate.scorers.fingerprint import scorer_fingerprint
from unitune.evaluate.scorers.interface import Attempt, Kind, Score, Scorer, Setting, Unscorable
from unitune.evaluate.scorers.json_text import read_json
from unitune.evaluate.scorers.measures import measure
from unitune.evaluate.scorers.sums import Sums, mean_of

__all__ = [
    "Attempt",
    "Kind",
    "Score",
    "Scorer",
    "Setting",
    "Sums",
    "Unscorable",
    "build",
    "check_expected",
    "check_telling",
    "mean_of",
    "measure",
    "read_json",
    "scorer_fingerprint",
]
