from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType
from support.sample_comparison import VERDICTS, contrast, infested, measured, sample_comparison

from unitune.render import terminal
from unitune.render.sections import Interval
from unitune.report import words
from unitune.report.charts import PERCENT
from unitune.report.comparison import describe


def printed(renderable: RenderableType, width: int = 80, *, colour: bool = False) -> str:
    file = io.StringIO()
    Console(
        file=file,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
    ).print(renderable)
    return file.getvalue()


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_is_also_said_in_words(verdict: str) -> None:
    comparison = sample_comparison(VERDICTS[verdict])
    output = " ".join(printed(terminal.view(describe(comparison))).split())

    assert output.startswith(verdict.upper())
    assert words.headline(comparison) in output


@pytest.mark.parametrize("verdict", VERDICTS)
def test_everything_fits_80_columns(verdict: str, tmp_path: Path) -> None:
    comparison = sample_comparison(VERDICTS[verdict], errors=3)
    output = printed(terminal.view(describe(comparison), [tmp_path / "report.html"]))

    assert max(map(cell_len, output.splitlines())) <= 80


def test_without_colour_a_terminal_gets_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    output = printed(terminal.view(describe(sample_comparison())), colour=True)

    assert "\x1b[1mBETTER\x1b[0m" in output  # bold is no colour


def test_other_metrics_slices_references_and_confusions_are_short_tables(tmp_path: Path) -> None:
    slices = tuple(contrast(f"language = {at}") for at in range(15))
    comparison = measured(sample_comparison()).model_copy(
        update={
            "secondary": (contrast("json_valid"),),
            "slices": slices,
            "references": (contrast("v1"),),
        }
    )
    output = printed(terminal.view(describe(comparison), [tmp_path / "report.html"]))

    assert max(map(len, output.splitlines())) <= 80
    rows = [" ".join(line.split()) for line in output.splitlines()]
    figures = "+50.0 40.0 to 62.5 25.0, 75.0 40 0.003 0.009"
    assert {f"{name} {figures}" for name in ("json_valid", "language = 0", "v1")} <= set(rows)
    assert "… 3 more in the report" in rows
    assert "language = 12" not in output
    assert {"late_parcel wants_refund 3", "late_parcel no label 1"} <= set(rows)


def test_cut_answers_have_a_column_of_their_own_where_there_are_any() -> None:
    comparison = sample_comparison()
    cut = tuple(each.model_copy(update={"cut": 7}) for each in comparison.contenders)
    output = printed(terminal.view(describe(comparison.model_copy(update={"contenders": cut}))))
    (row,) = (line.split() for line in output.splitlines() if line.startswith("tuned"))

    assert row[3:6] == ["0", "7", "96"]
    assert "Cut" not in printed(terminal.view(describe(comparison)))


@pytest.mark.parametrize(
    ("interval", "drawing"),
    [
        (Interval(50, 25, 75), "····━━━━━●━━━━━····"),
        (Interval(0, 0, 10), "●━━················"),
        (Interval(100, 90, 100), "················━━●"),
    ],
)
def test_a_bar_is_drawn_to_scale(interval: Interval, drawing: str) -> None:
    assert drawing == terminal.bar(PERCENT, interval).plain


def test_files_that_exist_are_named_whole_however_long_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / ("deep" * 30), tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (folder / "report.html").touch()

    output = printed(terminal.view(describe(sample_comparison()), [folder / "report.html"]))

    assert str(folder / "report.html") in output.replace("\n", "")
    assert "verdict.json" not in output


def test_files_below_the_current_folder_are_named_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.html").touch()

    output = printed(terminal.view(describe(sample_comparison()), [tmp_path / "report.html"]))

    assert output.splitlines()[-1].strip() == "report.html"


def test_texts_are_no_markup_and_control_the_terminal_in_nothing(tmp_path: Path) -> None:
    comparison = infested(sample_comparison(), "[red]\x1b[2J\u202e\r")
    output = printed(terminal.view(describe(comparison), [tmp_path / "report.html"]), width=200)

    assert "tuned[red]\ufffd[2J\ufffd\ufffd" in output
    assert not any(character in output for character in "\x1b\u202e\r")
