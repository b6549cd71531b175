"""The action's one comment on a pull request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar

import pytest
from support.github_action import Runner


class Thread7(BaseHTTPRequestHandler):
    """A pull request's comments, two on a page whatever is asked for."""

    comments: ClassVar[list[dict[str, Any]]]
    calls: ClassVar[list[str]]
    refuse: ClassVar[bool]
    login: ClassVar[str]
    """Whose token it is; empty: an app's, which may not ask."""
    closed: ClassVar[set[int]]
    """Comments that belong to others."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

    def answer(self, status: int, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        if self.path == "/user":
            self.answer(200 if self.login else 403, {"login": self.login})
            return
        page = int(self.path.rpartition("=")[2])
        self.answer(200, self.comments[2 * page - 2 : 2 * page])

    def do_POST(self) -> None:
        self.write("POST")

    def do_PATCH(self) -> None:
        self.write("PATCH")

    def write(self, method: str) -> None:
        self.calls.append(f"{method} {self.path}")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
        if self.refuse:
            self.answer(403, {"message": "Resource not accessible by integration"})
            return
        assert self.headers["Authorization"] == "Bearer ghs_token"
        if method == "POST":
            author = {"type": "User", "login": self.login} if self.login else {"type": "Bot"}
            self.comments.append({"id": 100 + len(self.comments), "user": author, "body": body})
        else:
            found = int(self.path.rpartition("/")[2])
            if found in self.closed:
                self.answer(403, {"message": "Forbidden"})
                return
            next(one for one in self.comments if one["id"] == found)["body"] = body
        self.answer(200, {})


@pytest.fixture
def thread(runner: Runner) -> Iterator[type[Thread7]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Thread7)
    worker = Thread(target=server.serve_forever)
    worker.start()
    marker = "<!-- unitune action: evals/unitune.yaml -->"
    Thread7.comments = [
        {"id": 1, "user": {"type": "User"}, "body": "Nice!"},
        {"id": 2, "user": {"type": "User"}, "body": f"{marker}\nno bot"},
    ]
    Thread7.calls, Thread7.refuse, Thread7.login, Thread7.closed = [], False, "", set()
    runner.environment |= {
        "GITHUB_API_URL": f"http://127.0.0.1:{server.server_port}",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "me/it",
        "GITHUB_RUN_ID": "42",
    }
    yield Thread7
    server.shutdown()
    server.server_close()
    worker.join()


def test_one_comment_is_written_and_then_kept_up_to_date(
    runner: Runner, thread: type[Thread7]
) -> None:
    for text in ("first", "second"):
        (runner.folder / "unitune.md").write_text(text)
        done = runner.step("Comment on the pull request")
        assert done.returncode == 0, done.stderr
    assert (thread.calls) == [
        "POST /repos/me/it/issues/7/comments",
        "PATCH /repos/me/it/issues/comments/102",
    ]
    assert len(thread.comments) == 3
    assert thread.comments[-1]["body"].startswith(
        "<!-- unitune action: evals/unitune.yaml -->\nsecond\n\n"
    )
    assert "(https://github.com/me/it/actions/runs/42)" in thread.comments[-1]["body"]


def test_a_persons_token_keeps_one_comment_too(runner: Runner, thread: type[Thread7]) -> None:
    thread.login = "octocat"
    (runner.folder / "unitune.md").write_text("text")
    for _ in range(3):
        assert runner.step("Comment on the pull request").returncode == 0
    assert [call.partition(" ")[0] for call in thread.calls] == ["POST", "PATCH", "PATCH"]


@pytest.mark.parametrize("user", [None, {"type": "Bot"}, {}])
def test_comments_of_others_are_passed_over(
    runner: Runner, thread: type[Thread7], user: dict[str, str] | None
) -> None:
    """Of another bot, which may not be changed, and of an account that is gone."""
    marker = "<!-- unitune action: evals/unitune.yaml -->"
    thread.comments.append({"id": 3, "user": user, "body": f"{marker}\nx"})
    thread.comments.append({"id": 4, "user": user, "body": None})
    thread.closed = {3}
    (runner.folder / "unitune.md").write_text("text")
    done = runner.step("Comment on the pull request")
    assert done.returncode == 0, done.stderr
    assert thread.calls[-1].startswith("POST")


def test_another_job_file_has_a_comment_of_its_own(runner: Runner, thread: type[Thread7]) -> None:
    (runner.folder / "unitune.md").write_text("text")
    for file in ("evals/unitune.yaml", "other--job.yaml"):
        runner.inputs["file"] = file
        runner.step("Comment on the pull request")
    assert thread.calls == ["POST /repos/me/it/issues/7/comments"] * 2


def test_a_long_summary_is_cut_to_what_a_comment_holds(
    runner: Runner, thread: type[Thread7]
) -> None:
    (runner.folder / "unitune.md").write_text("x" * 100_000)
    runner.step("Comment on the pull request")
    body = thread.comments[-1]["body"]
    assert len(body) == 65_000
    assert body.endswith("/actions/runs/42)\n")


def test_a_token_that_may_not_write_fails_nothing(runner: Runner, thread: type[Thread7]) -> None:
    """As in a pull request from a fork."""
    thread.refuse = True
    (runner.folder / "unitune.md").write_text("text")
    done = runner.step("Comment on the pull request")
    assert done.returncode == 0
    assert "::notice title=unitune::The comment on the pull request was not written" in done.stdout
    assert "403" in done.stdout


def test_a_plan_that_changed_nothing_makes_no_comment_and_mends_an_old_one(
    priced: Runner, thread: type[Thread7]
) -> None:
    name, empty = "Comment the plan on the pull request", priced.folder / "plan.md"
    empty.write_text("")
    assert priced.step(name).returncode == 0
    assert thread.calls == []
    empty.write_text("dearer")
    assert priced.step(name).returncode == 0
    empty.write_text("")
    assert priced.step(name).returncode == 0
    assert [call.partition(" ")[0] for call in thread.calls] == ["POST", "PATCH"]
    assert "The cost is the same as on the base branch." in thread.comments[-1]["body"]
