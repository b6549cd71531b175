"""`unitune import` brings suites over, and says what does not come along."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import Command

MADE = Path(__file__).parents[1] / "importers" / "made" / "promptfoo"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / ".unitune"))


def test_results_are_imported_and_compared(unitune: Command) -> None:
    done = unitune("import", f"promptfoo:{MADE / 'results.json'}", "--output", "evals")
    assert done.code == 0, done.err
    assert "wrote evals/unitune.yaml" in done.out
    assert "agrees with promptfoo on 14 of 14 answers" in done.out
    assert "Next: unitune compare evals/unitune.yaml" in done.out

    compared = unitune("compare", "evals/unitune.yaml")
    assert compared.code == 0, compared.err
    assert "INCONCLUSIVE" in compared.out
    assert "broken" in compared.out


def test_what_has_no_counterpart_is_told_and_nothing_is_written(
    unitune: Command, tmp_path: Path
) -> None:
    echoed = f"promptfoo:{MADE / 'echo.jsonl'}"
    refused = unitune("import", echoed, "--output", "evals")
    assert refused.code == 2
    assert "echo.jsonl test-6: the assertion 'llm-rubric': a model or a" in refused.err
    assert "2 items are not supported; nothing was written" in refused.err
    assert not (tmp_path / "evals").exists()

    dropped = unitune("import", echoed, "--output", "evals", "--drop")
    assert dropped.code == 0
    assert "test-6" in dropped.err
    assert "11 cases; left out 2 unsupported items." in dropped.out
    assert "Next: set data.train in evals/unitune.yaml to your training rows" in dropped.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspekt:x.eval",), "There is no backend or tool 'inspekt'. Did you mean 'inspect'?"),
        (("promptfoo:none.json",), "none.json cannot be read"),
        (("promptfoo:config.yaml",), "promptfoo eval -c config.yaml --providers echo"),
        (("promptfoo:x.yaml", "--answers", "test.jsonl"), "--answers is for a vendor's job"),
        (("fake:job-1", "--drop"), "--drop is for suites"),
        (("fake:job-1", "fake:job-2"), "import one job at a time"),
    ],
)
def test_mistakes_are_exit_code_2(
    unitune: Command, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").touch()
    done = unitune("import", *arguments)
    assert done.code == 2
    assert message in " ".join(done.err.split())
