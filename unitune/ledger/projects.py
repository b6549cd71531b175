"""Record the project of each run, and find a project again after a move.

Each ``.unitune`` folder has a file with the project's id. A folder with a known id at a new path is
the moved project. If the recorded folder still has the id, the new one is a copy, which is another
project.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from unitune.errors import UnreadableRecord
from unitune.ledger.looks import LookLedger
from unitune.ledger.records import METADATA, RUNS, UPLOADS, RunRecord, columns_of, run_of, values_of
from unitune.workspace.home import artifact_folder, artifacts, project_id, write_project_id

PROJECTS = sa.Table(
    "projects",
    METADATA,
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("project", sa.String(32), nullable=False, index=True),
    sa.Column("folder", sa.Text, nullable=False, index=True),
)


def is_lost(job_id: str | None) -> bool:
    """Return whether a job was a folder on this machine that no longer exists."""
    return job_id is not None and Path(job_id).is_absolute() and not Path(job_id).exists()


class ProjectLedger(LookLedger):
    """Methods of a ledger for the projects of runs."""

    def run_folder(self, run_id: str) -> Path:
        """Return the folder of a run; of a new one or another machine's, in this project."""
        query = sa.select(PROJECTS.c.folder).where(PROJECTS.c.run_id == run_id)
        if self.is_shared:
            runs = RUNS.c.id == PROJECTS.c.run_id, RUNS.c.host == socket.gethostname()
            query = query.where(*runs)
        folders = [Path(row["folder"]) for row in self._rows(query)]
        return next(iter(folders), artifacts().resolve()) / "runs" / run_id

    def in_project(self) -> sa.ColumnElement[bool]:
        """Return the condition for this project's runs; of a shared ledger or folder, for all."""
        if self.is_shared or self.folder == artifacts():
            return sa.true()
        self.project()
        here = PROJECTS.c.folder == str(artifacts().resolve())
        return RUNS.c.id.in_(sa.select(PROJECTS.c.run_id).where(here))

    def project(self) -> str | None:
        """Return the id of the current project if it has runs; record its move if it was moved."""
        folder = artifacts().resolve()
        id_, here = project_id(folder), str(folder)
        query = sa.select(*[PROJECTS.c.project, PROJECTS.c.folder]).distinct()
        found = (PROJECTS.c.project == id_) | (PROJECTS.c.folder == here)
        projects = {row["folder"]: row["project"] for row in self._rows(query.where(found))}
        if here in projects or not projects or self.is_shared:
            return projects.get(here)
        if any(project_id(Path(place)) == id_ for place in projects):
            return None
        for place in projects:
            self._move(place, here)
        return id_

    def _add_project(self, connection: sa.Connection, run_id: str, project: str) -> None:
        values = {"run_id": run_id, "project": project, "folder": str(artifacts().resolve())}
        connection.execute(PROJECTS.insert().values(values))

    def _own_project(self) -> str:
        """Return the id of the current project; a copy of another project gets an id of its own."""
        folder = artifact_folder()
        if (known := self.project()) is None:
            known = project_id(folder)
            query = sa.select(PROJECTS.c.project).where(PROJECTS.c.project == known)
            if known is None or self._rows(query):
                known = secrets.token_hex(16)
        if project_id(folder) != known:
            write_project_id(folder, known)
        return known

    def _move(self, old: str, new: str) -> None:
        """Record a new folder, also in the paths of files, models and jobs on this machine."""
        with self._database.writing() as connection:
            moved = PROJECTS.update().where(PROJECTS.c.folder == old)
            connection.execute(moved.values(folder=new))
            of_project = sa.select(PROJECTS.c.run_id).where(PROJECTS.c.folder == new)
            for column, run in ((RUNS.c.job_id, RUNS.c.id), (UPLOADS.c.ref, UPLOADS.c.run_id)):
                inside = run.in_(of_project), column.startswith(f"{old}/", autoescape=True)
                path = sa.func.replace(column, f"{old}/", f"{new}/")
                connection.execute(column.table.update().where(*inside).values({column: path}))
            query = sa.select(*columns_of(RUNS, RunRecord)).where(RUNS.c.id.in_(of_project))
            for row in connection.execute(query).mappings():
                with suppress(UnreadableRecord):
                    record = run_of(row)
                    if record.model and record.model.name.startswith(f"{old}/"):
                        name = new + record.model.name.removeprefix(old)
                        model = record.model.model_copy(update={"name": name})
                        values = values_of(replace(record, model=model))
                        connection.execute(
                            RUNS.update().where(RUNS.c.id == record.id).values(values)
                        )
