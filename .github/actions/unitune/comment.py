"""Keep one comment on a pull request up to date: ``comment.py NAME BODY-FILE [update-only]``.

A marker in its first line, with NAME such as the path of a job file, identifies the comment. With
``update-only``, a missing comment is not created. Comments of others with the marker are left
alone. A failure prints a notice and does not fail the job. Needs only the standard library.

Source: GitHub's REST API for issue comments, version 2022-11-28.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

LONGEST = 65_000
"""Maximum number of characters; GitHub's limit is 65,536."""
SECONDS = 30
NOT_OURS = (403, 404)
"""Status codes for changing someone else's comment."""


def main(name: str, body_file: str, mode: str = "") -> None:
    """Update the comment, or create it."""
    marker = f"<!-- unitune action: {name.replace('--', '- -')} -->"
    body = f"{marker}\n{Path(body_file).read_text(encoding='utf-8')}"
    run = "/".join(os.environ.get(name, "") for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"))
    link = (
        f"\n\n[The run, with the full report]({run}/actions/runs/{os.environ['GITHUB_RUN_ID']})\n"
    )
    content = {"body": body[: LONGEST - len(link)] + link}
    repository = f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues"
    thread = f"{repository}/{os.environ['PULL_REQUEST']}/comments"
    try:
        if not update(thread, f"{repository}/comments", marker, content) and mode != "update-only":
            call("POST", thread, content)
    except Exception as failure:  # noqa: BLE001 - a missing comment must not fail the job
        why = " ".join(str(failure).split())
        print(f"::notice title=unitune::The comment on the pull request was not written: {why}")


def update(thread: str, comments: str, marker: str, content: object) -> bool:
    """Update the action's earlier comment and return whether there was one that it may change."""
    login = own_login()
    for comment in listed(thread):
        author = comment.get("user") or {}
        ours = author.get("type") == "Bot" if login is None else author.get("login") == login
        if not ours or (comment.get("body") or "").partition("\n")[0].strip() != marker:
            continue
        try:
            call("PATCH", f"{comments}/{comment['id']}", content)
        except HTTPError as refused:  # another bot's
            if refused.code not in NOT_OURS:
                raise
        else:
            return True
    return False


def own_login() -> str | None:
    """Return the login of the token's owner, or None for a token of an app."""
    try:
        return call("GET", "/user")["login"]
    except HTTPError:
        return None


def listed(thread: str) -> Iterator[dict[str, Any]]:
    """Yield all comments, oldest first."""
    page = 1
    while comments := call("GET", f"{thread}?per_page=100&page={page}"):
        yield from comments
        page += 1


def call(method: str, path: str, content: object = None) -> Any:
    """Send a request to GitHub's API and return its JSON."""
    request = Request(
        os.environ.get("GITHUB_API_URL", "https://api.github.com") + path,
        method=method,
        data=None if content is None else json.dumps(content).encode(),
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    with urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
