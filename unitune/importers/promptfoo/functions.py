"""Code of promptfoo's assertions as functions of the scorer `python`.

`unitune import` writes ``assertions.py``, a file of the user's that makes its functions by these:

    function_1 = python("len(output) < 20")
    function_2 = javascript("output.length < context.vars.most", threshold=0.5)
    function_3 = transform("output.trim()")

JavaScript runs in a `node` of the user's, one process an answer. What code raises is a wrong
answer, as in promptfoo. Vars are the row's own key `vars`.

Source: promptfoo 0.121.20, src/assertions/javascript.ts, python.ts and src/util/transform.ts.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, TypeAlias, cast

from unitune.data.example import Example

Code: TypeAlias = Callable[[object, dict[str, object]], object]
"""From an output and a context to what the code returns."""
Judging: TypeAlias = Callable[[str, Example], dict[str, object]]
NODE_SECONDS = 30
"""For one answer; node itself starts in 50 ms."""
NODE = """
const {code, file, name, output, context} = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const load = async () => {
  const loaded = await import(require('url').pathToFileURL(file));
  const main = loaded.default ?? loaded;
  const found = name ? (loaded[name] ?? main[name]) : (main.default ?? main);
  if (typeof found !== 'function') throw new Error(`${file} exports no function`);
  return found;
};
(async () => {
  const run = file ? await load() : new Function('output', 'context', code);
  const value = await run(output, context);
  process.stdout.write('\\n' + JSON.stringify({value}));
})().catch(error => process.stdout.write('\\n' + JSON.stringify({error: String(error)})));
"""


def javascript(code: str, **options: Any) -> Judging:
    """Return an assertion in JavaScript: an expression, or lines that return.

    Args:
        code: As promptfoo has it, its templates filled in.
        options: Those of `judging`.
    """
    body = code.rstrip()
    return judging(_in_node({"code": body if "\n" in body else f"return {body}"}), **options)


def javascript_file(file: Path, name: str | None = None, **options: Any) -> Judging:
    """Return an assertion that a JavaScript file exports, by default its default."""
    return judging(_in_node({"file": str(file), "name": name}), **options)


def python(code: str, **options: Any) -> Judging:
    """Return an assertion in Python: an expression, or lines that return."""
    lines = code.split("\n") if "\n" in code else [f"return {code}"]
    names: dict[str, Any] = {}
    source = "import json\ndef main(output, context):\n" + "\n".join(f"    {x}" for x in lines)
    exec(compile(source, "<assertion>", "exec"), names)  # noqa: S102 - the user's own code
    return judging(names["main"], **options)


def python_file(file: Path, name: str = "get_assert", **options: Any) -> Judging:
    """Return an assertion that a Python file defines."""
    spec = spec_from_file_location(f"promptfoo_{file.stem}", file)
    assert spec is not None, "a path makes one"
    assert spec.loader is not None, "a file has a loader"
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return judging(getattr(module, name), **options)


def judging(  # noqa: PLR0913 - each has a name and a default
    run: Code,
    *,
    threshold: float | None = None,
    negate: bool = False,
    graded: bool = False,
    config: Mapping[str, object] | None = None,
    transform: str | None = None,
) -> Judging:
    """Return code of promptfoo's as a function of the scorer `python`.

    Args:
        run: The code.
        threshold: The lowest number that passes; by default any above 0.
        negate: Whether a boolean is turned round.
        graded: Whether the score counts, for a mean; else whether it passes.
        config: The assertion's own, for the code.
        transform: JavaScript that changes the answer first.
    """

    def judge(answer: str, case: Example) -> dict[str, object]:
        context = {**_context(case), **({"config": dict(config)} if config else {})}
        try:
            output = _transformed(transform, answer, context) if transform else answer
            returned = run(output, context)
        except Exception as error:  # noqa: BLE001 - as promptfoo has it, whatever the code raises
            return {"score": 0.0, "reason": f"{type(error).__name__}: {error}"}
        passed, score, reason = _result(returned, threshold, negate=negate)
        score = min(1.0, max(0.0, score)) if graded else float(passed)
        return {"score": score, "reason": "" if passed else reason}

    return judge


def transform(code: str) -> Callable[[str, Example], str]:
    """Return JavaScript of promptfoo's that makes another text of an answer."""

    def change(answer: str, case: Example) -> str:
        output = _transformed(code, answer, _context(case))
        if output is None:
            raise ValueError("the transform returned nothing")
        return output if isinstance(output, str) else json.dumps(output, separators=(",", ":"))

    return change


def _result(returned: object, threshold: float | None, *, negate: bool) -> tuple[bool, float, str]:
    """Return whether what code returned passes, its score and its reason."""
    match returned:
        case str() if returned.lower() in ("true", "false"):
            return _result(returned.lower() == "true", threshold, negate=negate)
        case bool():
            passed = returned is not negate
            return passed, float(passed), f"it returned {returned}"
        case {"score": int() | float() as score}:
            content = cast("dict[str, object]", returned)
            passed = bool(content.get("pass", content.get("pass_", False)))
            enough = threshold is None or score >= threshold
            return passed and enough, float(score), str(content.get("reason") or "")
        case _:
            pass
    try:
        score = float(str(returned))
    except ValueError:
        score = math.nan
    if math.isnan(score):
        return False, 0.0, f"it returned {returned!r}, which is no result"[:200]
    passed = score > 0 if threshold is None else score >= threshold
    return passed, score, f"it returned {score:g}"


def _context(case: Example) -> dict[str, object]:
    row = case.model_extra or {}
    return {"vars": row.get("vars") or {}, "prompt": case.prompt[-1].text, "test": row}


def _transformed(code: str, answer: str, context: Mapping[str, object]) -> object:
    body = code if "\n" in code else f"return {code}"
    return _in_node({"code": body})(answer, dict(context))


def _in_node(what: Mapping[str, object]) -> Code:
    def run(output: object, context: dict[str, object]) -> object:
        request = json.dumps({**what, "output": output, "context": context})
        done = subprocess.run(  # noqa: S603 - the user's own code
            ["node", "-e", NODE],  # noqa: S607 - whichever the user has
            input=request,
            capture_output=True,
            text=True,
            timeout=NODE_SECONDS,
            check=True,
        )
        reply = json.loads(done.stdout.rpartition("\n")[2])
        if "error" in reply:
            raise ValueError(reply["error"])
        return reply.get("value")

    return run
