"""Keep one comment on a pull request up to date: ``comment.py NAME BODY-FILE [update-only]``.

The comment is found again by a marker in its first line, one for each name, such as that of a job
file; with ``update-only`` one that is not there is not made. A token that may
not write, as in pull requests from forks, is told and fails nothing: the comment is no gate. Needs
nothing but Python.

Source: GitHub's REST API for issue comments, version 2022-11-28.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

LONGEST = 65_000
"""Characters; GitHub takes 65,536."""
SECONDS = 30


def main(name: str, body_file: str, mode: str = "") -> None:
    """Write the comment anew, or for the first time."""
    marker = f"<!-- unitune action: {name.replace('--', '- -')} -->"
    body = f"{marker}\n{Path(body_file).read_text(encoding='utf-8')}"
    run = "/".join(os.environ.get(name, "") for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"))
    link = (
        f"\n\n[The run, with the whole report]({run}/actions/runs/{os.environ['GITHUB_RUN_ID']})\n"
    )
    content = {"body": body[: LONGEST - len(link)] + link}
    repository = f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues"
    thread = f"{repository}/{os.environ['PULL_REQUEST']}/comments"
    try:
        found = earlier(thread, marker)
        if found is None and mode != "update-only":
            call("POST", thread, content)
        elif found is not None:
            call("PATCH", f"{repository}/comments/{found}", content)
    except OSError as failure:  # what urllib raises, timeouts among it
        print(f"::notice title=unitune::The pull request has no comment of this run: {failure}")


def earlier(thread: str, marker: str) -> int | None:
    """Return the id of our earlier comment; what people write is left alone."""
    page = 1
    while comments := call("GET", f"{thread}?per_page=100&page={page}"):
        for comment in comments:
            ours = comment["body"].partition("\n")[0].strip() == marker
            if ours and comment["user"]["type"] == "Bot":
                return comment["id"]
        page += 1
    return None


def call(method: str, path: str, content: object = None) -> Any:
    """Ask GitHub's API."""
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
