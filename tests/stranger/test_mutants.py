"""The contract fails a backend that would lose jobs, train on other rows, or leave costs standing.

Each mutant is the stranger's backend with one mistake, held against the test that should catch it,
through HTTP and the server that plays its vendor; all in one process beside this one. The mistakes
are those that people made who wrote a backend from outside, and more.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HARNESS = """
import dataclasses
import pytest
from check_contract import TestStrangerBackend as Sound
from unitune.backends.protocol import State
from unitune.errors import BackendError, Unreachable
from unitune.models import TunedModel
from unitune_stranger import backend as module

Sound.__test__ = False
Backend = module.StrangerBackend

class Mutant(Sound):
    mistake = ""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def mistaken(cls):
        before = [(place, dict(vars(place))) for place in (module, Backend)]
        exec(cls.mistake, globals())
        yield
        for place, attributes in before:
            for name, value in attributes.items():
                if vars(place)[name] is not value:
                    setattr(place, name, value)
"""
CLASS = """
class TestMutant{number}(Mutant):
    __test__ = True
    mistake = {mistake!r}
"""
WITHOUT = """
original = module.{function}
module.{function} = lambda *given: {{
    name: value for name, value in original(*given).items() if name not in {names}
}}
"""
REFUSED = """
submit = Backend.submit
def mapped(self, launch):
    try:
        return submit(self, launch)
    except Unreachable:
        raise
    except BackendError as error:
        raise {error} from error
Backend.submit = mapped
"""
MUTANTS = {  # which test catches it, and the mistake
    "errors without a status": (
        "refused_create_call_says_its_status",
        REFUSED.format(error="BackendError(str(error))"),
    ),
    "files named by their path": (
        "files_of_one_name_and_other_content",
        """
upload, known = Backend.upload, {}
def upload_once(self, path, sha256):
    if path.name not in known:
        known[path.name] = upload(self, path, sha256)
    return known[path.name]
Backend.upload = upload_once
""",
    ),
    "tuning ignored": (
        "settings_that_the_offer_honours_are_sent",
        WITHOUT.format(function="create_body", names=("epochs", "learning_rate")),
    ),
    "a start that is ignored": (
        "goes_on_from_a_tuned_model",
        WITHOUT.format(function="create_body", names=("start",)),
    ),
    "validation rows never sent": (
        "validation_rows_are_sent",
        WITHOUT.format(function="create_body", names=("validation",)),
    ),
    "failed told as succeeded": (
        "failed_job_is_failed",
        """
poll = Backend.poll
def optimist(self, job_id, cursor):
    status = poll(self, job_id, cursor)
    if status.state is not State.FAILED:
        return status
    model = TunedModel(backend="stranger", name="some-model", base="base-words")
    return dataclasses.replace(status, state=State.SUCCEEDED, model=model, error=None)
Backend.poll = optimist
""",
    ),
    "an answer without its limit": (
        "settings_of_an_answer_are_sent",
        WITHOUT.format(function="chat_body", names=("max_tokens",)),
    ),
    "an answer without its temperature": (
        "settings_of_an_answer_are_sent",
        WITHOUT.format(function="chat_body", names=("temperature",)),
    ),
    "an answer without its stop": (
        "settings_of_an_answer_are_sent",
        WITHOUT.format(function="chat_body", names=("stop",)),
    ),
    "undeploy does nothing": (
        "deployment_comes_up_once_and_goes",
        "Backend.undeploy = lambda self, ref: None",
    ),
    "every error is 400": (
        "refused_create_call_says_its_status",
        REFUSED.format(error="BackendError('no', status=400)"),
    ),
    "create calls repeated blindly": (
        "after_a_fault_of_the_create_call_there_is_one_job",
        """
submit = Backend.submit
def again(self, launch):
    try:
        return submit(self, launch)
    except BackendError:
        return submit(self, launch)
Backend.submit = again
""",
    ),
    "lost answers taken for refused": (
        "create_call_without_an_answer_leaves_one_job",
        """
submit = Backend.submit
def sure(self, launch):
    try:
        return submit(self, launch)
    except BackendError as error:
        raise BackendError(str(error), status=400) from error
Backend.submit = sure
""",
    ),
    "only the first page of jobs is searched": (
        "job_among_many_is_found",
        "module.next_page = lambda page: None",
    ),
    "a deployment's name that grows": (
        "deployment_polled_with_its_own_status",
        """
status_of = Backend.deployment_status
def growing(self, ref, model):
    status = status_of(self, ref, model)
    named = status.model.model_copy(update={"name": f"{status.model.name}#{model.name}"})
    return dataclasses.replace(status, model=named)
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
    job = self.api.get("jobs", job_id, action="read the job").all
    assert [step["loss"] for step in job["steps"]] is not None
    return poll(self, job_id, cursor)
Backend.poll = trusting
""",
    ),
}


@pytest.fixture(scope="module")
def output(installed: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest prints of all mutants, each held against the test that should catch it."""
    folder = tmp_path_factory.mktemp("mutants")
    shutil.copy(HERE / "check_contract.py", folder)
    classes = [
        CLASS.format(number=number, mistake=mistake)
        for number, (_, mistake) in enumerate(MUTANTS.values())
    ]
    classes.append(CLASS.format(number="Less", mistake=""))
    (folder / "test_mutants.py").write_text("".join((HARNESS, *classes)), encoding="utf-8")
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
        env={**installed, "UNITUNE_DIR": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=list(MUTANTS))
def test_the_contract_fails_a_backend_with_a_mistake(number: int, output: str) -> None:
    assert f"FAILED test_mutants.py::TestMutant{number}::" in output, output[-3000:]
    assert f"ERROR test_mutants.py::TestMutant{number}::" not in output


def test_the_contract_passes_it_without_one(output: str) -> None:
    """The control, run after all mutants: the same tests, and nothing wrong."""
    assert "FAILED test_mutants.py::TestMutantLess::" not in output, output[-3000:]
    assert "PASSED test_mutants.py::TestMutantLess::" in output
