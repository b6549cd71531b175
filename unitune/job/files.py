"""Find and replace the files that a job names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

from unitune.job.dialogue import names_function

CHAT_TEMPLATES = ("hermes",)  # built-in values of `Data.chat_template`
Place: TypeAlias = Callable[[str], str]


def place_files(content: dict[str, Any], folder: Path, place: Place) -> None:
    """Replace each file that a job's document names by ``place(file)``.

    Args:
        content: A job as JSON, which is changed.
        folder: Folder of the job.
        place: Returns another path of a file.
    """
    evaluate, tuning = content.get("evaluate", {}), content.get("tuning", {})
    _place_data(content["data"], place)
    if "start" in content and (folder / content["start"]).is_dir():
        content["start"] = place(content["start"])
    if called := tuning.get("callbacks"):
        tuning["callbacks"] = [_place_function(each, place) for each in called]
    tools: dict[str, str] = evaluate.get("dialogue", {}).get("tools", {})
    for name, source in tools.items():
        tools[name] = _place_function(source, place) if names_function(source) else place(source)
    rewards = tuning.get("reward", {}).get("scorers") or ()
    for scorer in (*evaluate.get("scorers", ()), *rewards):
        _place_keys(scorer, {"definition", "file", "grader", "function"}, place)
    for contender in evaluate.get("contenders", ()):
        _place_keys(contender, {"answers"}, place)
    _place_keys(evaluate.get("gate"), {"baseline"}, place)
    _place_keys(evaluate, {"labels"}, place)


def _place_data(data: dict[str, Any], place: Place) -> None:
    if isinstance(data.get("test"), dict):
        _place_keys(data["test"], {*data["test"]}, place)
    for source in data["train"] if isinstance(data.get("train"), list) else ():
        _place_keys(source, {"files"}, place)
    own = () if data.get("chat_template") in CHAT_TEMPLATES else ("chat_template",)
    _place_keys(data, {"train", "test", "validation", *own}, place)


def _place_keys(part: object, keys: set[str], place: Place) -> None:
    """Replace files, lists of files and functions under keys; other values are unchanged."""
    if not isinstance(part, dict):
        return
    values = cast("dict[str, Any]", part)
    for key in keys & values.keys():
        if key == "function":
            values[key] = _place_function(values[key], place)
        elif isinstance(values[key], str):
            values[key] = place(values[key])
        elif isinstance(values[key], list):
            values[key] = [place(x) if isinstance(x, str) else x for x in values[key]]


def _place_function(reference: str, place: Place) -> str:
    path, _, name = reference.rpartition(":")
    return f"{place(path)}:{name}" if path.endswith(".py") else reference
