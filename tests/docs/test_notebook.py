"""The notebook of `examples/` runs from its first to its last cell."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs the extra `dev`")
nbformat = pytest.importorskip("nbformat", reason="needs the extra `dev`")

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"
MINUTES = 60
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq"),
    pytest.mark.filterwarnings("ignore:Proactor event loop"),
]


def executed(folder: Path, environment: dict[str, str], **cuts: int) -> list[Any]:
    """Run the notebook in a folder and return its cells; `rows` and `cases` cut the example."""
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)
    for name, count in cuts.items():
        cut = f"from pathlib import Path\nfile = Path('bank-intents/{name}.jsonl')\n"
        cut += f"_ = file.write_text(''.join(file.open().readlines()[:{count}]))"
        notebook.cells.insert(4, nbformat.v4.new_code_cell(cut))
    client: Any = nbclient.NotebookClient(
        notebook,
        timeout=MINUTES * 60,
        kernel_name="python3",
        resources={"metadata": {"path": folder}},
    )
    client.execute(env=environment)
    return notebook.cells


def texts(cells: list[Any]) -> str:
    outputs = (output for cell in cells for output in cell.get("outputs", ()))
    shown = [output.get("text") or output["data"].get("text/plain", "") for output in outputs]
    return "\n".join(shown)


@pytest.fixture
def environment(tmp_path: Path, guarded_environment: dict[str, str]) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"XDG_STATE_HOME": str(tmp_path / "state"), "IPYTHONDIR": str(tmp_path / "ipython")}
    return guarded_environment | own | {"PATH": path}


def test_every_cell_runs_with_a_tiny_model(
    tmp_path: Path, environment: dict[str, str], tiny_default: Path
) -> None:
    cells = executed(
        tmp_path, environment | {"UNITUNE_CACHE": str(tiny_default)}, train=60, test=24
    )
    assert "bank-intents" in texts(cells)
    assert not [cell for cell in cells if "%pip" in cell.source and cell.get("outputs")]


@pytest.mark.nightly
def test_the_notebook_ends_with_a_better_model(
    tmp_path: Path, environment: dict[str, str], default_model: Path
) -> None:
    assert default_model.is_dir()
    assert "\nbetter " in texts(executed(tmp_path, environment))
