"""`unitune backends NAME` lists a job's options there: key, value, default, meaning."""

from __future__ import annotations

import json
import sys

import pytest
from support.command_line import Command, ran

from unitune.backends import registry
from unitune.cli.backends import option_views

WITH_OPTIONS = [name for name in registry.offer_names() if registry.offer(name).options]
IMPORT_ALONE = """
import sys
from unitune.backends import registry
offer = registry.offer(sys.argv[1])
for path in (offer.options, offer.deploy_options):
    path and registry.options_of(path)
loaded = {"openai", "together", "google.genai", "boto3", "botocore", "torch"}
print(sorted(loaded & set(sys.modules)))
"""


def test_every_backend_that_launches_has_its_options_listed() -> None:
    without = set(registry.backend_names()) - set(WITH_OPTIONS)
    assert {"anthropic", "fake"} >= {name for name in without if not name.startswith("stranger")}


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_a_backends_options_are_shown_with_value_and_meaning(unitune: Command, name: str) -> None:
    shown = unitune("backends", name)
    told = json.loads(unitune("backends", name, "--json").out)["backends"][0]
    model = registry.options_of(str(registry.offer(name).options))

    assert shown.code == 0
    assert set(model.model_fields) <= {one["name"] for one in told["options"]}
    assert all(one["name"] in shown.out and one["type"] for one in told["options"])


def test_a_bound_a_default_and_a_choice_are_told() -> None:
    options = {
        one.name: one
        for one in option_views(registry.options_of(str(registry.offer("openai").options)))
    }
    assert (
        options["learning_rate_multiplier"].type,
        options["learning_rate_multiplier"].default,
    ) == ("number above 0, auto", "auto")
    assert options["reasoning_effort"].type == "default, low, medium, high"
    assert options["wandb.project"].meaning == "Project of the run."


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_options_are_read_without_the_vendors_packages(name: str) -> None:
    done = ran([sys.executable, "-c", IMPORT_ALONE, name])
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
