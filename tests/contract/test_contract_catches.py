"""The contract fails a backend that would lose jobs, train on other rows, or leave costs standing.

Each mutant is a real backend with one mistake, held against the test that should catch it, through
its SDK and the server that plays its vendor; all in one process beside this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("together", reason="needs the extra `together`")

HERE = Path(__file__).parents[1]
HELD = """
import dataclasses, sys
import pytest
sys.path.insert(0, {tests!r})
from contract.test_together_contract import TestTogether as Sound
from unitune.backends.protocol import State
from unitune.errors import BackendError
from unitune.models import TunedModel
from unitune_providers.together import backend as verbs
from unitune_providers.together import chat, client, endpoints, files

Sound.__test__ = False
Backend = verbs.TogetherBackend
PLACES = (verbs, chat, client, client.Connection, endpoints, files, Backend)

class Mutant(Sound):
    mistake = ""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def mistaken(cls):
        before = [dict(vars(place)) for place in PLACES]
        exec(cls.mistake, globals())
        yield
        for place, held in zip(PLACES, before):
            for name, value in held.items():
                if vars(place)[name] is not value:
                    setattr(place, name, value)
"""
CLASS = """
class TestMutant{number}(Mutant):
    __test__ = True
    mistake = {mistake!r}
"""
MUTANTS = {  # which test catches it, and the mistake
    "errors without a status": (
        "refused_create_call_says_its_status",
        """
client.ours = lambda error, what: BackendError(f"could not {what}: {error}")
""",
    ),
    "create calls repeated blindly": (
        "create_call_without_an_answer_leaves_one_job",
        """
client.Connection.writes = property(lambda self: client.Together(
    api_key=client.api_key(), timeout=5.0, max_retries=2))
""",
    ),
    "lost answers taken for refused": (
        "create_call_without_an_answer_leaves_one_job",
        """
from unitune.errors import Unreachable
original = Backend.submit
def submit(self, launch):
    try:
        return original(self, launch)
    except BackendError as error:
        raise BackendError(str(error), status=400) from error
Backend.submit = submit
""",
    ),
    "files named by their path": (
        "files_of_one_name_and_other_content",
        """
put, known = files.put, {}
def put_once(connection, path, sha256):
    if path.name not in known:
        known[path.name] = put(connection, path, sha256)
    return known[path.name]
files.put = put_once
""",
    ),
    "tuning ignored": (
        "settings_that_the_offer_honours_are_sent",
        """
create_body = verbs.create_body
def without(launch, options, limits):
    body = create_body(launch, options, limits)
    return {name: body[name] for name in body if name not in ("n_epochs", "batch_size")}
verbs.create_body = without
""",
    ),
    "validation rows never sent": (
        "validation_rows_are_sent",
        """
create_body = verbs.create_body
def without(launch, options, limits):
    body = create_body(launch, options, limits)
    return {name: body[name] for name in body if name != "validation_file"}
verbs.create_body = without
""",
    ),
    "failed told as succeeded": (
        "failed_job_is_failed",
        """
poll = Backend.poll
def optimist(self, job_id, cursor):
    status = poll(self, job_id, cursor)
    if status.state is not State.FAILED:
        return status
    model = TunedModel(backend="together", name="some/model", base="base")
    return dataclasses.replace(status, state=State.SUCCEEDED, model=model, error=None)
Backend.poll = optimist
""",
    ),
    "an answer without its limit": (
        "settings_of_an_answer_are_sent",
        """
body = chat._body
chat._body = lambda *given: {k: v for k, v in body(*given).items() if k != "max_tokens"}
""",
    ),
    "an answer without its temperature": (
        "settings_of_an_answer_are_sent",
        """
body = chat._body
chat._body = lambda *given: {k: v for k, v in body(*given).items() if k != "temperature"}
""",
    ),
    "an answer without its stop": (
        "settings_of_an_answer_are_sent",
        """
body = chat._body
chat._body = lambda *given: {k: v for k, v in body(*given).items() if k != "stop"}
""",
    ),
    "undeploy does nothing": (
        "deployment_comes_up_once_and_goes",
        """
Backend.undeploy = lambda self, ref: None
""",
    ),
    "a deployment's name that grows": (
        "deployment_told_its_own_answer",
        """
deployment_status = Backend.deployment_status
def growing(self, ref, model):
    seen = deployment_status(self, ref, model)
    named = seen.model.model_copy(update={"name": f"{seen.model.name}#{model.name}"})
    return dataclasses.replace(seen, model=named)
Backend.deployment_status = growing
""",
    ),
    "a step without its number": (
        "steps_are_counted_and_measured",
        """
poll = Backend.poll
def uncounted(self, job_id, cursor):
    status = poll(self, job_id, cursor)
    events = [dataclasses.replace(e, data={k: v for k, v in e.data.items() if k != "step"})
              for e in status.events]
    return dataclasses.replace(status, events=tuple(events))
Backend.poll = uncounted
""",
    ),
    "a poll that trusts every field": (
        "polls_survive_fields_that_are_left_out",
        """
poll = Backend.poll
def trusting(self, job_id, cursor):
    for event in self._told(job_id):
        event.message.strip()
    return poll(self, job_id, cursor)
Backend.poll = trusting
""",
    ),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of all mutants, each held against the test that should catch it."""
    folder = tmp_path_factory.mktemp("mutants")
    classes = [
        CLASS.format(number=number, mistake=mistake)
        for number, (_, mistake) in enumerate(MUTANTS.values())
    ]
    classes.append(CLASS.format(number="Less", mistake=""))
    text = "".join((HELD.format(tests=str(HERE)), *classes))
    (folder / "test_mutants.py").write_text(text, encoding="utf-8")
    chosen = [
        f"(TestMutant{number} and {caught_by})"
        for number, (caught_by, _) in enumerate(MUTANTS.values())
    ]
    all_of_them = " or ".join({caught_by for caught_by, _ in MUTANTS.values()})
    chosen.append(f"(TestMutantLess and ({all_of_them}))")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", "--tb=short"]
    done = subprocess.run(
        [*command, "-k", " or ".join(chosen), "test_mutants.py"],
        cwd=folder,
        env={**os.environ, "UNITUNE_DIR": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 1 == done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=list(MUTANTS))
def test_the_contract_fails_a_backend_with_a_mistake(number: int, told: str) -> None:
    assert f"FAILED test_mutants.py::TestMutant{number}::" in told, told[-3000:]
    assert f"ERROR test_mutants.py::TestMutant{number}::" not in told


def test_the_contract_passes_it_without_one(told: str) -> None:
    """The control, run after all mutants: the same tests, and nothing wrong."""
    assert "FAILED test_mutants.py::TestMutantLess::" not in told, told[-3000:]
    assert "PASSED test_mutants.py::TestMutantLess::" in told
