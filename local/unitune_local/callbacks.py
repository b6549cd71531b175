"""Call a user's functions at each event of a training, in the training's process."""

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
    """Return a function that records an event and then passes it to each callback, with the model.

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
