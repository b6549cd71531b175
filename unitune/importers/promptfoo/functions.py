"""Code of promptfoo's assertions as functions of the scorer `python`.

`unitune import` writes ``assertions.py``, a file of the user's that makes its functions by these:

    function_1 = python("len(output) < 20")
    function_2 = javascript("output.length < context.vars.most", threshold=0.5)
    function_3 = transform("output.trim()")

JavaScript and Ruby run in the user's `node` and `ruby`, one process an answer. What code raises is
a wrong answer, as in promptfoo; what keeps it from running, or is raised by a JavaScript file or a
transform, is an error of that case, as there. Vars are the row's own key `vars`.

Source: promptfoo 0.121.20, src/assertions/javascript.ts, ruby.ts, python.ts,
    scriptResultNormalization.ts, and src/util/transform.ts.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from inspect import iscoroutine
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

from unitune.data.example import Example

Code: TypeAlias = Callable[[object, dict[str, object]], object]
"""From an output and a context to what the code returns."""
Judging: TypeAlias = Callable[[str, Example], dict[str, object]]
RUN_SECONDS = 30
"""For one answer; node itself starts in 50 ms."""
NODE = """
const {code, file, name, output, context} = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const load = async () => {
  const loaded = await import(require('url').pathToFileURL(file));
  const main = loaded.default?.default ?? loaded.default ?? loaded;
  const found = name ? main[name] : main;
  if (typeof found !== 'function') throw new Error(`${file} exports no function`);
  return found;
};
process.mainModule ??= {require};  // what promptfoo gives code in the place of `require`
(async () => {
  const run = file ? await load() : new Function('output', 'context', 'require', code);
  const value = await run(output, context);
  const number = typeof value === 'number' ? String(value) : undefined;
  process.stdout.write('\\n' + JSON.stringify({value, number}));
})().catch(error => process.stdout.write('\\n' + JSON.stringify({error: String(error)})));
"""
RUBY = """
require 'json'
request = JSON.parse($stdin.read)
begin
  request['file'] ? load(request['file']) : eval(request['code'], TOPLEVEL_BINDING)
  owner, _, name = request['name'].rpartition('.')
  arguments = request['output'], request['context']
  value = (owner.empty? ? self : Object.const_get(owner)).send(name, *arguments)
  print "\\n" + JSON.generate({value: value})
rescue Exception => error
  print "\\n" + JSON.generate({error: "#{error.class}: #{error.message}"})
end
"""
STATEMENTS = re.compile(
    r"""\\[\\'"`]|'(?:\\.|[^\\'])*'?|"(?:\\.|[^\\"])*"?|`(?:\\.|[^\\`])*`?|.""", re.DOTALL
)
"""Pieces of JavaScript, of which promptfoo takes those that are ``;`` for ends of statements."""
LEADING_NUMBER = re.compile(r"\s*[-+]?(?:Infinity|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
"""What ``Number.parseFloat`` reads of a text."""
OBJECT = (dict, list, type(None))
GRADING: Mapping[str, type | tuple[type, ...]] = {
    "pass": bool,
    "score": (int, float),
    "reason": str,
    "comment": str,
    "componentResults": list,
    **dict.fromkeys(("namedScores", "namedScoreWeights", "tokensUsed", "assertion"), OBJECT),
}
"""Keys of a result and their types; the first three must be there."""
SNAKE_CASE = {
    "pass_": "pass",
    "named_scores": "namedScores",
    "component_results": "componentResults",
    "tokens_used": "tokensUsed",
}


class CannotRun(Exception):
    """Code that did not come to judge the answer."""


def javascript(code: str, **options: Any) -> Judging:
    """Return an assertion in JavaScript: an expression, or lines that return.

    Args:
        code: As promptfoo has it, its templates filled in.
        options: Those of `judging`.
    """
    return judging(_in_process(NODE, {"code": _function_body(code.rstrip())}), **options)


def javascript_file(file: Path, name: str | None = None, **options: Any) -> Judging:
    """Return an assertion that a JavaScript or TypeScript file exports, by default its default."""
    return judging(_in_process(NODE, {"file": str(file), "name": name}), **options)


def ruby(code: str, **options: Any) -> Judging:
    """Return an assertion in Ruby: an expression, or lines."""
    source = f"require 'json'\ndef main(output, context)\n{_lines(code, '  ')}\nend"
    run = _in_process(RUBY, {"code": source, "name": "main"})
    return judging(run, script=True, **options)


def ruby_file(file: Path, name: str = "get_assert", **options: Any) -> Judging:
    """Return an assertion that a Ruby file defines, as a method or `Class.method`."""
    return judging(_in_process(RUBY, {"file": str(file), "name": name}), script=True, **options)


def python(code: str, **options: Any) -> Judging:
    """Return an assertion in Python: an expression, or lines that return."""
    names: dict[str, Any] = {}
    source = f"import json\ndef main(output, context):\n{_lines(code, '    ')}"
    exec(compile(source, "<assertion>", "exec"), names)  # noqa: S102 - the user's own code
    return judging(names["main"], script=True, **options)


def python_file(file: Path, name: str = "get_assert", **options: Any) -> Judging:
    """Return an assertion that a Python file defines, as a function or `Class.method`."""
    spec = spec_from_file_location(f"promptfoo_{file.stem}", file)
    assert spec is not None, "a path makes one"
    assert spec.loader is not None, "a file has a loader"
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.parent))  # for what stands beside it, as in promptfoo
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    function: Callable[..., Any] = attrgetter(name)(module)

    def run(output: object, context: dict[str, object]) -> object:
        returned = function(output, context)
        return asyncio.run(returned) if iscoroutine(returned) else returned

    return judging(run, script=True, **options)


def judging(  # noqa: PLR0913 - each has a name and a default
    run: Code,
    *,
    script: bool = False,
    threshold: float | None = None,
    negate: bool = False,
    graded: bool = False,
    config: Mapping[str, object] | None = None,
    transform: str | None = None,
) -> Judging:
    """Return code of promptfoo's as a function of the scorer `python`.

    Args:
        run: The code.
        script: Whether it is Python or Ruby, of which promptfoo takes more for a result.
        threshold: The lowest number that passes; by default any above 0.
        negate: Whether it holds where it would not.
        graded: Whether the score counts, for a mean; else whether it passes.
        config: The assertion's own, for the code.
        transform: JavaScript that changes the answer first.
    """

    def judge(answer: str, case: Example) -> dict[str, object]:
        context = {**_context(case), **({"config": dict(config)} if config else {})}
        output = _transformed(transform, answer, context) if transform else answer
        try:
            result = _result(run(output, context), script=script)
        except CannotRun:
            raise
        except Exception as error:  # noqa: BLE001 - as promptfoo has it, whatever the code raises
            return {"score": 0.0, "reason": f"{type(error).__name__}: {error}"}
        passed = result.passes(threshold, script=script) is not negate
        score = result.score if result.score is not None else float(passed)
        if graded and not 0 <= score <= 1:
            raise ValueError(f"it returned {score:g}; in a mean a score is from 0 to 1")
        reason = "" if passed else result.reason
        return {"score": score if graded else float(passed), "reason": reason}

    return judge


def transform(code: str) -> Callable[[str, Example], str]:
    """Return JavaScript of promptfoo's that makes another text of an answer."""

    def change(answer: str, case: Example) -> str:
        output = _transformed(code, answer, _context(case))
        return output if isinstance(output, str) else json.dumps(output, separators=(",", ":"))

    return change


class Result(NamedTuple):
    """What code returned: whether it passes, or a score, or both."""

    passed: bool | None
    score: float | None
    reason: str

    def passes(self, threshold: float | None, *, script: bool) -> bool:
        """Whether it passes; in an object promptfoo reads a threshold of Python and Ruby alone."""
        if self.score is None:
            return bool(self.passed)
        if self.passed is None:
            return self.score > 0 if threshold is None else self.score >= threshold
        return self.passed and (not script or threshold is None or self.score >= threshold)


def _result(returned: object, *, script: bool) -> Result:
    """Return what code returned, as promptfoo reads it.

    Raises:
        ValueError: It is no result.
    """
    reason = f"it returned {returned!r}"[:200]
    value = _read(returned) if script and isinstance(returned, str) else returned
    match value:
        case bool():
            return Result(value, None, reason)
        case int() | float() if not script or math.isfinite(value):
            return Result(None, float(value), reason)
        case dict():
            content = cast("dict[str, object]", value)
            if script:
                renamed = {SNAKE_CASE[key]: content[key] for key in content.keys() & SNAKE_CASE}
                content = {**renamed, **content}
            if _is_grading(content):
                score = float(cast("float", content["score"]))
                return Result(content["pass"] is True, score, str(content["reason"]))
        case _:
            pass
    raise ValueError(f"{reason}, which is no result")


def _is_grading(content: Mapping[str, object]) -> bool:
    required = content.keys() >= {"pass", "score", "reason"}
    typed = all(isinstance(content[key], GRADING[key]) for key in content.keys() & GRADING.keys())
    return required and typed and not isinstance(content["score"], bool)


def _read(text: str) -> object:
    """Return what promptfoo takes a text of a script for."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.startswith("{"):
        return cast("object", json.loads(text))
    number = LEADING_NUMBER.match(text)
    return float(number[0]) if number else None


def _function_body(code: str) -> str:
    """Return JavaScript with the `return` that promptfoo puts before its last expression."""
    if "\n" in code:
        return code
    code = re.sub(r";+\s*$", "", code.strip())
    if not re.match(r"(const|let|var)\s", code):
        return f"return {code}"
    ends = [piece.end() for piece in STATEMENTS.finditer(code) if piece[0] == ";"]
    last = code[ends[-1] :].strip() if ends else ""
    return f"{code[: ends[-1]]} return {last}" if last else code


def _lines(code: str, indent: str) -> str:
    """Return the body of a function, indented as promptfoo does."""
    if "\n" not in code:
        return f"{indent}return {code}"
    first = re.search(r"^(?!\s*$)\s+", code, re.MULTILINE)
    return "\n".join(f"{first[0] if first else indent}{line}" for line in code.split("\n"))


def _context(case: Example) -> dict[str, object]:
    row = case.model_extra or {}
    return {"vars": row.get("vars") or {}, "prompt": case.prompt[-1].text, "test": row}


def _transformed(code: str, answer: str, context: Mapping[str, object]) -> object:
    body = code if "\n" in code else f"return {code}"
    try:
        output = _in_process(NODE, {"code": body})(answer, dict(context))
    except ValueError as error:
        raise CannotRun(f"the transform failed: {error}") from error
    if output is None:
        raise CannotRun("the transform returned nothing")
    return output


def _in_process(program: str, what: Mapping[str, object]) -> Code:
    command = ["node", "-e", program] if program is NODE else ["ruby", "-e", program]

    def run(output: object, context: dict[str, object]) -> object:
        request = json.dumps({**what, "output": output, "context": context})
        try:
            done = subprocess.run(  # noqa: S603 - the user's own code
                command,
                input=request,
                capture_output=True,
                text=True,
                timeout=RUN_SECONDS,
                check=False,  # what it wrote says what became of it
            )
            reply = json.loads(done.stdout.rpartition("\n")[2])
        except (OSError, ValueError, subprocess.TimeoutExpired) as failure:
            raise CannotRun(f"{command[0]} did not run it: {failure}") from failure
        if "error" in reply:
            raise (CannotRun if program is NODE and "file" in what else ValueError)(reply["error"])
        return float(reply["number"]) if "number" in reply else reply.get("value")

    return run
