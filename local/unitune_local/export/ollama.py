"""Write Ollama's Modelfile, with the evaluation's settings and the training's template.

Ollama's templates use Go's syntax. The texts of a Jinja template around each role's turns are read
from probe conversations, and the result is compared with it on the rows of the run.

Source: ollama/ollama, docs/modelfile.mdx and docs/template.mdx at fb30760.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from unitune.backends.local_capabilities import ExportSpec
from unitune.errors import Unsupported
from unitune.models import Request
from unitune_local.data.chat_text import has_template
from unitune_local.data.rendering import render_prompt, turn_end
from unitune_local.export.tuned import Tuned

# Maximum context that Ollama holds in memory, in tokens
MOST_CONTEXT = 8192
# Words that no template contains
SYSTEM, USER, ANSWER, MORE = "XsystemX", "XuserX", "XanswerX", "XmoreX"
ROLES = ("system", "user", "assistant")
# The text of `unitune_local.data.rendering.completed_text`
COMPLETED = "{{ range $at, $_ := .Messages }}{{ if $at }}\n\n{{ end }}{{ .Content }}{{ end }}"
UNTRANSLATABLE = (
    "the chat template cannot be converted to Ollama's syntax: {why}. Export it with --to gguf; "
    "llama.cpp reads the template unchanged."
)


@dataclass(frozen=True, slots=True)
class Template:
    """Texts before and after the turns of a conversation, by role."""

    before: dict[str, str]
    after: dict[str, str]
    without_system: str  # text at the beginning without a system turn
    answer: str  # text before the model's answer

    def render(self, request: Request) -> str:
        """Return the text that Ollama would send to the model."""
        texts = [
            f"{self.before[turn.role]}{turn.text}{self.after[turn.role]}"
            for turn in request.messages
        ]
        has_system = any(turn.role == "system" for turn in request.messages)
        return "".join(["" if has_system else self.without_system, *texts, self.answer])

    @property
    def go(self) -> str:
        """Template in Go's syntax."""
        alone = f"{{{{ if not .System }}}}{self.without_system}{{{{ end }}}}"
        turns = "{{ else }}".join(
            f'{{{{ if eq .Role "{role}" }}}}{self.before[role]}{{{{ .Content }}}}{self.after[role]}'
            for role in ROLES
        ) + "{{ end }}" * len(ROLES)
        before, after = self.before["user"].replace("user", "{{ .Role }}"), self.after["user"]
        is_uniform = all(
            (before.replace("{{ .Role }}", role), after) == (self.before[role], self.after[role])
            for role in ROLES
        )
        if is_uniform:
            turns = f"{before}{{{{ .Content }}}}{after}"
        beginning = alone if self.without_system else ""
        return f"{beginning}{{{{ range .Messages }}}}{turns}{{{{ end }}}}{self.answer}"


def modelfile(file: str, tuned: Tuned, spec: ExportSpec) -> str:
    """Return the Modelfile of a GGUF file; raises Unsupported for an untranslatable template."""
    tokenizer = tuned.tokenizer
    has_turns = has_template(tokenizer)
    template = _checked(tokenizer, spec.requests).go if has_turns else COMPLETED
    context = int(cast("Any", tuned.config).get_text_config().max_position_embeddings)
    end = turn_end(tokenizer) if has_turns else tokenizer.eos_token_id
    stop = cast("str", cast("Any", tokenizer).convert_ids_to_tokens(end))
    parameters = {
        "temperature": f"{spec.temperature:g}",
        "num_ctx": min(context, MOST_CONTEXT),
        "num_predict": max((each.max_tokens for each in spec.requests), default=-1),
        "repeat_penalty": 1,  # which some versions set higher
        "stop": f'"{stop}"',
    }
    lines = [f"FROM ./{file}", f"TEMPLATE {_quoted(template)}"]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    lines += [f"SYSTEM {_quoted(spec.system)}"] if spec.system else []
    return "\n".join(lines) + "\n"


def _checked(tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request]) -> Template:
    """Return the template, checked against the tokenizer's own on all requests."""
    template = _read_off(tokenizer)
    texts = [*template.before.values(), *template.after.values(), template.answer]
    if "{{" in "".join([*texts, template.without_system]):
        raise Unsupported(
            UNTRANSLATABLE.format(why="the template writes {{, which is syntax there")
        )
    bos = cast("str | None", tokenizer.bos_token) or ""
    for request in requests:
        if request.tools or any(turn.role not in ROLES for turn in request.messages):
            raise Unsupported(UNTRANSLATABLE.format(why="the rows have tools"))
        expected = cast("Any", tokenizer).decode(render_prompt(tokenizer, request.messages))
        if expected not in (template.render(request), bos + template.render(request)):
            raise Unsupported(UNTRANSLATABLE.format(why="it writes the rows differently"))
    return template


def _read_off(tokenizer: PreTrainedTokenizerBase) -> Template:
    def write(*texts: str, asks: bool = False) -> str:
        roles = {SYSTEM: "system", USER: "user", MORE: "user", ANSWER: "assistant"}
        turns = [{"role": roles[text], "content": text} for text in texts]
        apply = cast("Any", tokenizer).apply_chat_template
        return cast("str", apply(turns, tokenize=False, add_generation_prompt=asks))

    bos = cast("str | None", tokenizer.bos_token) or ""
    alone, two = write(USER), write(USER, MORE)
    after_user = alone.partition(USER)[2]
    before_user = _between(two, USER, MORE).removeprefix(after_user)
    without_system = alone.partition(USER)[0].removesuffix(before_user)
    if without_system == bos:
        without_system = ""
    with_system, answered = write(SYSTEM, USER), write(USER, ANSWER)
    before_system = with_system.partition(SYSTEM)[0]
    if not before_user.startswith(bos):
        before_system = before_system.removeprefix(bos)
    return Template(
        before={
            "system": before_system,
            "user": before_user,
            "assistant": _between(answered, USER, ANSWER).removeprefix(after_user),
        },
        after={
            "system": _between(with_system, SYSTEM, USER).removesuffix(before_user),
            "user": after_user,
            "assistant": answered.partition(ANSWER)[2],
        },
        without_system=without_system,
        answer=write(USER, asks=True).removeprefix(alone),
    )


def _between(text: str, first: str, second: str) -> str:
    return text.partition(first)[2].partition(second)[0]


def _quoted(text: str) -> str:
    if '"""' in text:
        raise Unsupported(UNTRANSLATABLE.format(why='a text contains """, which ends texts there'))
    return f'"""{text}"""'
