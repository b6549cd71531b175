"""Functions of the user's that a training calls at each of its events, in its own process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from unitune.backends.protocol import Event
from unitune.scorers.user_function import UserFunction
from unitune_local.job_folder import Kind, Note

if TYPE_CHECKING:
    from peft import PeftModel


def with_callbacks(note: Note, names: Sequence[str], folder: Path, model: PeftModel) -> Note:
    """Return a function that notes an event and then calls each callback with it.

    Args:
        note: Receives the events.
        names: Functions as a job names them.
        folder: Folder of the job, where relative paths start.
        model: The model in training, which the callbacks are given.

    Raises:
        JobError: A callback cannot be imported.
    """
    functions = {name: UserFunction(name, folder, f"the callback {name}").load() for name in names}

    def note_and_call(kind: Kind, data: dict[str, JsonValue]) -> None:
        note(kind, data)
        event = Event(f"{kind}-{data.get('step', '')}", kind, time.time(), data)
        for name, function in functions.items():
            try:
                function(event, model)
            except Exception as error:
                why = f"the callback {name} raised {type(error).__name__}: {error}"
                raise RuntimeError(why) from error

    return note_and_call if functions else note
