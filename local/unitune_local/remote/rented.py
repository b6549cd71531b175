"""Give the worker to a machine that is rented: its image or installation, and its secrets.

Both are set in the environment, as a job file may be someone else's.
"""

from __future__ import annotations

from pydantic import JsonValue

from unitune.backends.kit.hosted import required
from unitune.errors import JobError
from unitune.workspace import user_settings
from unitune.workspace.install import requirement

# Environment variables with the image of a job, and the names of variables that jobs get as secrets
IMAGE, SECRETS = "UNITUNE_IMAGE", "UNITUNE_JOB_SECRETS"
WORKER = ("python", "-P", "-m", "unitune_local.remote.worker")


def image() -> str | None:
    """Return the image that the environment names."""
    return user_settings.variable(IMAGE).strip() or None


def installation(extra: str) -> str:
    """Return what a machine without an image installs; raise `JobError` if it cannot."""
    if (wanted := requirement("local", extra)) is None:
        raise JobError(
            "unitune is installed from a folder, which a job cannot install. Build the image in "
            f"the Dockerfile, push it to a registry, and set {IMAGE} to its name."
        )
    return wanted


def named_secrets() -> dict[str, JsonValue]:
    """Return the variables that the environment names as secrets of jobs."""
    names = user_settings.variable(SECRETS).replace(",", " ").split()
    return {name: required(name, f"a secret that {SECRETS} names") for name in names}
