from __future__ import annotations

from pathlib import Path

import pytest

from unitune.run.reaper import forget, log_file


@pytest.mark.parametrize("deployment_id", ["../../mine", "{folder}/mine"])
def test_no_id_of_a_ledger_leads_out_of_the_folder(tmp_path: Path, deployment_id: str) -> None:
    """Who wrote the ledger may not have a file of the user's removed."""
    mine, home = tmp_path / "mine.json", tmp_path / "home"
    mine.write_text("{}", encoding="utf-8")
    (home / "reapers").mkdir(parents=True)
    deployment_id = deployment_id.format(folder=tmp_path)
    forget(home, deployment_id)
    assert mine.exists()
    assert home / "reapers" == log_file(home, deployment_id).parent
