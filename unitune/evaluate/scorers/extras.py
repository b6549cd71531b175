"""What scorers need beyond a plain install: the extra `metrics`."""

from __future__ import annotations

from importlib.util import find_spec

from unitune.errors import MissingExtra
from unitune.job.scorers import QualitySpec
from unitune.workspace.install import install_command


def needs(package: str, spec: QualitySpec) -> None:
    """Refuse a scorer, before anything is asked, whose package is not installed.

    Raises:
        MissingExtra: It is not; the message has the install command.
    """
    if find_spec(package) is None:
        raise MissingExtra(
            f"the scorer {spec.name!r} needs the package {package!r}, which is not installed. "
            f"Install it with: {install_command('metrics')}"
        )
