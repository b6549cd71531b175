"""Serve the pages on 127.0.0.1: routes, refusals and errors.

Only holders of the printed address may see them. Listening on 127.0.0.1 alone does not exclude
others:

    another user of this machine   can also connect. So the printed address has a token, which the
                                   first visit exchanges for a cookie. The browser is started with a
                                   private file that redirects to the address, because other users
                                   can see the command line
    a web page elsewhere           can resolve its own name to this machine, and then read the pages
                                   as its own (DNS rebinding). Such a request names that host, and
                                   is refused
    any other web page             can post a form here, with the cookie if it is served from
                                   another port of this machine. Browsers send the origin of a
                                   request, which is checked

The pages contain models' answers: texts are escaped (jinja2), and the pages' content security
policy allows no other script than unitune's.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import secrets
import socket
import tempfile
import webbrowser
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from unitune.errors import NotFoundError, UnituneError, UserError
from unitune.evaluate.review.queue import Review
from unitune.ledger import Ledger
from unitune.render import html
from unitune.report.files import PACKAGE as REPORT
from unitune.ui.pages import PACKAGE, Pages, Visit, problem
from unitune.ui.review import ReviewPages

# Any port, because ssh may forward another one
LOCAL_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")
HEADERS = {  # for every response, unless the page sets its own
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # With `no-referrer`, forms would be posted without their origin.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
STRANGER = (
    "This page is for the user who started it. Open the address that `unitune ui` printed: it has "
    "a token, which a browser keeps until the command ends."
)


class Access:
    """Tokens of one server, whose visitors enter at the page `first`."""

    def __init__(self, port: int, first: str = "/runs") -> None:
        self.first = first
        self.cookie = f"unitune-{port}"  # all ports of a machine share cookies
        self.token = secrets.token_urlsafe(24)
        """Token of the printed address, which may be opened in several browsers."""
        self._session = secrets.token_urlsafe(24)

    def refusal(self, request: web.Request) -> str | None:
        """Return why a request is refused; None if it is allowed."""
        if not LOCAL_HOST.fullmatch(request.host):
            return "This server answers requests to 127.0.0.1 and localhost alone."
        if request.method not in ("GET", "HEAD") and not _is_from_a_page_of_ours(request):
            return "Only a page of this server may send a form."
        return None if request.path == "/" or self._has_cookie(request) else STRANGER

    def _has_cookie(self, request: web.Request) -> bool:
        return _is_same(request.cookies.get(self.cookie, ""), self._session)

    async def enter(self, request: web.Request) -> web.Response:
        """Exchange the token of an address for a cookie, and redirect to the first page."""
        has_token = _is_same(request.query.get("token", ""), self.token)
        if not has_token and not self._has_cookie(request):
            return web.Response(status=403, text=STRANGER)
        response = web.Response(status=303, headers={"Location": self.first})
        # Not Strict, because the file that the browser opens redirects here from another site.
        response.set_cookie(self.cookie, self._session, httponly=True, samesite="Lax")
        return response


def _is_from_a_page_of_ours(request: web.Request) -> bool:
    same_site = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    return same_site and request.headers.get("Origin") == f"http://{request.host}"


def _is_same(given: str, secret: str) -> bool:
    sent = given.encode(errors="surrogateescape")  # its bytes, if it is not valid text
    return hmac.compare_digest(sent, secret.encode())


LOOPBACK = "127.0.0.1"
LARGEST_FORM = 65_536  # bytes


def application(ledger: Ledger, access: Access, review: Review | None = None) -> web.Application:
    """Return the web application for the pages of a ledger, and of a review if there is one."""
    pages = Pages(ledger)
    app = web.Application(middlewares=[_guard(access), _explain], client_max_size=LARGEST_FORM)
    app.on_response_prepare.append(_add_headers)
    style, script = html.resource("style.css"), html.resource("script.js", PACKAGE)
    policy = html.policy(style, html.resource("script.js", REPORT))
    report_headers = {"Content-Security-Policy": f"sandbox allow-scripts; {policy}"}
    app.add_routes(
        [
            web.get("/", access.enter),
            web.get("/runs", _page(pages.runs)),
            web.get("/runs/{run}", _page(pages.run)),
            web.get("/deployments", _page(pages.deployments)),
            web.get("/comparisons", _page(pages.comparisons)),
            web.get("/comparisons/{comparison}", _page(pages.comparison)),
            web.get("/comparisons/{comparison}/report", _page(pages.report, report_headers)),
            web.post("/comparisons/{comparison}/notes", _form(pages.write_note)),
            web.get("/style.css", _file(style + html.resource("style.css", PACKAGE), "text/css")),
            web.get("/script.js", _file(script, "text/javascript")),
        ]
    )
    if review is not None:
        reviewed, keys = ReviewPages(review), html.resource("review.js", PACKAGE)
        app.add_routes(
            [
                web.get("/review", _page(reviewed.page)),
                web.post("/review", _form(reviewed.decide)),
                web.get("/review.js", _file(keys, "text/javascript")),
            ]
        )
    return app


def serve(
    ledger: Ledger,
    port: int,
    announce: Callable[[str], None],
    *,
    browser: bool,
    review: Review | None = None,
) -> None:
    """Serve the pages until Ctrl-C, and a review first if there is one.

    Port 0 is any free one; raises `UserError` if the port is in use. `announce` prints the address,
    and `browser` opens it.
    """
    try:
        listening = socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise UserError(
            f"port {port} of {LOOPBACK} cannot be used: {error.strerror}. Name another with "
            "--port, or leave it out for one that is free."
        ) from error
    with listening:
        port = listening.getsockname()[1]
        access = Access(port, "/runs" if review is None else "/review")
        address = f"http://{LOOPBACK}:{port}/?token={access.token}"
        announce(address)
        app = application(ledger, access, review)
        with _redirecting(address, ledger.folder) if browser else nullcontext() as page:
            if page:
                webbrowser.open(page.as_uri())
            web.run_app(app, sock=listening, print=None, access_log=None, shutdown_timeout=1.0)


@contextmanager
def _redirecting(address: str, folder: Path) -> Generator[Path]:
    """Write a page that redirects to an address, as others can read a browser's command line."""
    handle, name = tempfile.mkstemp(".html", "ui-", folder if folder.is_dir() else None)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:  # only the user may read it
            file.write(f'<meta http-equiv="refresh" content="0; url={address}">')
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _guard(access: Access) -> Middleware:
    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = access.refusal(request)
        if refusal is not None:
            return web.Response(status=403, text=refusal)
        return await handler(request)

    return guarded


@web.middleware
async def _explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except NotFoundError as error:
        title, text, status = "Not found", str(error), 404
    except (UnituneError, OSError) as error:
        status = 400 if isinstance(error, UserError) else 503
        title, text = "This cannot be shown", str(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        title, text, status = error.reason, "The pages above show what there is.", error.status
    return _html(problem(title, text), status=status)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _page(make: Callable[[Visit], str], headers: dict[str, str] | None = None) -> Handler:
    async def shown(request: web.Request) -> web.StreamResponse:
        visit = Visit(request.match_info, request.query)
        return _html(await asyncio.to_thread(make, visit), headers=headers)

    return shown


def _form(act: Callable[[Visit], str]) -> Handler:
    async def posted(request: web.Request) -> web.StreamResponse:
        fields = {
            name: value for name, value in (await request.post()).items() if isinstance(value, str)
        }
        visit = Visit(request.match_info, request.query, fields)
        raise web.HTTPSeeOther(await asyncio.to_thread(act, visit))

    return posted


def _file(text: str, content_type: str) -> Handler:
    async def sent(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, content_type=content_type)

    return sent


def _html(text: str, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=text, content_type="text/html", status=status, headers=headers)
