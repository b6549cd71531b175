"""Secrets in texts, held against gitleaks' own samples of its rules."""

from __future__ import annotations

import json
import random
import string
import time
import warnings
from pathlib import Path

import pytest

from unitune.data.privacy import secrets
from unitune.data.privacy.secrets import find_secrets

SAMPLES = json.loads(Path(__file__).with_name("gitleaks_samples.json").read_text(encoding="utf-8"))
OWN_RULES = 29
RULES = secrets._rules()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(("rule", "head", "tail"), SAMPLES["secrets"])
def test_what_gitleaks_finds_is_found(rule: str, head: str, tail: str) -> None:
    assert find_secrets(head + tail), rule


@pytest.mark.parametrize(("rule", "head", "tail"), SAMPLES["none"])
def test_what_gitleaks_lets_pass_passes_its_rule(rule: str, head: str, tail: str) -> None:
    assert rule not in {secret.rule for secret in find_secrets(head + tail)}


def test_every_rule_about_text_can_be_read_by_python_as_go_reads_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patterns = [rule._pattern for rule in RULES.rules if not rule.path]  # pyright: ignore[reportPrivateUsage]
    assert len(patterns) - OWN_RULES == 217


@pytest.mark.parametrize(
    ("go", "matching", "others"),
    [
        ("a(?i)b|c", ["ab", "aB", "c", "C"], ["AB"]),
        ("(x(?i)y)z", ["xYz"], ["xyZ", "Xyz"]),
        ("[[:alnum:]]{2}", ["a9"], ["[:", "a:"]),
        (r"[(|]\z", ["|", "("], ["z"]),
    ],
)
def test_flags_of_go_hold_to_the_end_of_their_group(
    go: str, matching: list[str], others: list[str]
) -> None:
    """Source: https://github.com/google/re2/wiki/Syntax, "set flags within current group"."""
    pattern = secrets._compiled(go)  # pyright: ignore[reportPrivateUsage]
    assert matching == [text for text in (*matching, *others) if pattern.fullmatch(text)]


def test_only_a_prefix_that_all_of_the_kind_share_is_shown() -> None:
    (token,) = find_secrets("use hf_" + "jCBaQngSHiHDRYOcsMcifUcysGyaiybUWz" + " here")
    assert token == ("huggingface-access-token", 4, 41, "hf_")
    (password,) = find_secrets('api_key = "' + "hV7xkP2qLw9zR4t" + '"')
    assert (password.rule, password.prefix) == ("generic-api-key", "")


@pytest.mark.parametrize(
    "text",
    [
        "sk-...",
        "sk-YOUR_API_KEY",
        'api_key = os.environ["OPENAI_API_KEY"]',
        "hf_" + "x" * 34,
        "AKIAIOSFODNN7EXAMPLE",
        "password: ********",
        "commit 09242ce9c8a60d9b051fc2d166f9e849b88c7ac0",
    ],
)
def test_stand_ins_are_none(text: str) -> None:
    assert find_secrets(text) == []


@pytest.mark.parametrize("text", ["curl ", "curl\r", "okta", "key = ", "-----begin "])
def test_a_long_text_takes_time_in_proportion(text: str) -> None:
    """RE2 promises it for any expression; Python's engine takes the square of it for some."""

    def seconds(times: int) -> float:
        begin = time.process_time()
        find_secrets(text * times + "a1b2c3d4e5f6")
        return time.process_time() - begin

    assert seconds(8_000) < 8 * seconds(2_000) + 0.2


LETTERS, HEX = string.ascii_letters + string.digits, "0123456789abcdef"


def random_text(letters: str, length: int, seed: str) -> str:
    """Return letters without a pattern, the same ones every time, so that no file holds a key."""
    return "".join(random.Random(seed).choices(letters, k=length))  # noqa: S311 - no key


VENDOR_KEYS = {
    "Anthropic": "sk-ant-api03-" + random_text(LETTERS, 93, "anthropic") + "AA",
    "Anthropic OAuth": "sk-ant-oat01-" + random_text(LETTERS, 86, "oauth") + "AA",
    "OpenAI": "sk-proj-"
    + random_text(LETTERS, 74, "a")
    + "T3BlbkFJ"
    + random_text(LETTERS, 74, "b"),
    "Together": "tgp_v1_" + random_text(LETTERS, 43, "together"),
    "Fireworks": "fw_" + random_text(LETTERS, 24, "fireworks"),
    "Groq": "gsk_" + random_text(LETTERS, 52, "groq"),
    "OpenRouter": "sk-or-v1-" + random_text(HEX, 64, "openrouter"),
    "xAI": "xai-" + random_text(LETTERS, 80, "xai"),
    "DeepSeek": "sk-" + random_text(HEX, 32, "deepseek"),
    "Replicate": "r8_" + random_text(LETTERS, 37, "replicate"),
    "NVIDIA": "nvapi-" + random_text(LETTERS, 64, "nvidia"),
    "LangSmith": "lsv2_pt_" + random_text(HEX, 32, "c") + "_" + random_text(HEX, 10, "d"),
    "Cerebras": "csk-" + random_text(string.ascii_lowercase + string.digits, 48, "cerebras"),
    "Tinker": "tml-" + random_text(LETTERS, 60, "tinker"),
    "Pinecone": "pcsk_" + random_text(LETTERS, 6, "e") + "_" + random_text(LETTERS, 63, "f"),
    "W&B": "wandb_v1_" + random_text(LETTERS, 77, "wandb"),
    "Azure": random_text(LETTERS, 52, "g") + "JQQJ99BBAC" + random_text(LETTERS, 22, "h"),
    "Hugging Face": "hf_" + random_text(string.ascii_letters, 34, "hf"),
    "Google API": "AIza" + random_text(LETTERS, 35, "gcp"),
    "Google token": "ya29." + random_text(LETTERS, 150, "ya29"),
    "Nebius": "v1.CmMK" + random_text(LETTERS, 180, "nebius"),
    "AWS session": "IQoJb3JpZ2luX2Vj" + random_text(LETTERS, 300, "aws"),
    "Mistral": "the Mistral key " + random_text(LETTERS, 32, "mistral"),
    "Cohere": "a Cohere API key: " + random_text(LETTERS, 40, "cohere"),
    "password in a URL": "postgres://app:" + random_text(LETTERS, 12, "pw") + "@db.firma.de/prod",
    "user and password": "https://u:" + random_text(LETTERS, 10, "u") + "@git.firma.de/a.git",
    "bearer": "Authorization: Bearer " + random_text(LETTERS, 40, "bearer"),
    "password": "password: " + "Sommer2024!",
}


@pytest.mark.parametrize("around", ["I get a 401 with {} in my calls", "It is {}.", "{}&a=1"])
@pytest.mark.parametrize("vendor", VENDOR_KEYS)
def test_keys_of_model_vendors_are_found_in_prose(vendor: str, around: str) -> None:
    assert find_secrets(around.format(VENDOR_KEYS[vendor])), vendor


def test_a_secret_is_found_behind_letters_of_full_width_and_in_json_within_json() -> None:
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in VENDOR_KEYS["Groq"])
    assert [secret.rule for secret in find_secrets(f"it is {wide} here")] == ["groq-key"]
    nested = json.dumps({"out": json.dumps({"key": VENDOR_KEYS["Hugging Face"]})})
    assert len(find_secrets(nested)) == 1


def decoys() -> list[str]:
    """Return over 200 texts that look a little like secrets, and are none."""
    made = list[str]()
    for at in range(10):
        hexes = [random_text(HEX, 64, f"{at} {number}") for number in range(4)]
        ids = [random_text(LETTERS, 29, f"{at} id {number}") for number in range(4)]
        uuid = f"{hexes[0][:8]}-{hexes[0][8:12]}-4{hexes[0][12:15]}-a{hexes[0][15:18]}"
        made += [
            f"commit {hexes[0][:40]} fixes it",
            f"sha256:{hexes[1]}",
            f"request {uuid}-{hexes[2][:12]} failed with a token error",
            f"data:image/png;base64,{ids[0] * 6}",
            f"chatcmpl-{ids[0]} and call_{ids[1][:24]} and msg_01{ids[2][:22]}",
            f"file-{ids[3][:24]} was uploaded, resp_{hexes[3][:48]} was answered",
            f"order id {ids[1][:22]} has shipped, tracking 1Z{ids[2].upper()[:16]}",
            f"meta-llama/Llama-3.3-70B-Instruct-Turbo at together, key features {at}",
            f"the model ft:gpt-4o-mini-2024-07-18:acme::{ids[0][:8]} answered",
            f"md5 {hexes[0][:32]} of mistral-7b-instruct-v0.{at}.Q4_K_M.gguf",
            f"password reset does not work for user number {at * 7919}",
            f"def api_key_{at}(self): return os.environ['API_KEY']",
            f"https://db.firma.de:5432/prod?sslmode=require&user=app{at}",
            f"fw_update_version_{at * 7919} and fw_printenv, fw_rules_table_v4_default",
            f"https://cdn.example.org/a/{hexes[0][:40]}.js?v={hexes[1][:16]}&key=value",
            f"run wandb/{ids[0][:8].lower()} has the key metric {hexes[2][:7]}",
            f"time 12:30:4{at}@host1, http://10.0.0.1:8080/a@b",
            f"arn:aws:iam::{at}23456789012:role/key-admin",
        ]
    return [
        *made,
        "use sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx or <YOUR_API_KEY> or ${API_KEY}",
        "sk-learn, sk-SK, sk-toggleable__content, sk-estimator-doc-link",
        "postgres://postgres:postgres@localhost:5432/test",
        "https://user:password@example.com/path",
        "postgres://$USER:$PASSWORD@host/db and postgres://<user>:<password>@host",
        "Authorization: Bearer $TOKEN",
        "Authorization: Bearer YOUR_API_TOKEN_GOES_HERE",
        "Password: must have 8 characters, one digit and one letter",
        "password: ******** (hidden)",
        "passwort: siehe oben, Kennwort: wie besprochen",
        "git+https://github.com/a/b@v1.2.3 and ssh://git@github.com:22/a/b.git",
        *(f"use the {name} endpoint with a secret of {count} letters"
          for name in ("azure", "mistral", "cohere", "nebius", "together") for count in range(3)),
    ]  # fmt: skip


def test_what_only_looks_like_a_secret_is_none() -> None:
    assert len(decoys()) > 200
    assert [text for text in decoys() if find_secrets(text)] == []
