"""Restrict the pages to holders of the printed address, on this machine only.

The server listens on 127.0.0.1. That alone does not exclude others:

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

import hmac
import re
import secrets
from collections.abc import Iterable

from aiohttp import web

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
    """Tokens of one server.

    Args:
        port: Port of the server, part of the cookies' name: all ports of a machine share cookies.
        first: Path of the first page.
    """

    def __init__(self, port: int, first: str = "/runs") -> None:
        self.first = first
        self.cookie = f"unitune-{port}"
        self.token = secrets.token_urlsafe(24)
        """Token of the printed address, which may be opened in several browsers."""
        self._session = secrets.token_urlsafe(24)

    def refusal(self, request: web.Request) -> str | None:
        """Return why a request is refused; None if it is allowed."""
        if not LOCAL_HOST.fullmatch(request.host):
            return "This server answers requests to 127.0.0.1 and localhost alone."
        if request.method not in ("GET", "HEAD") and not _is_from_a_page_of_ours(request):
            return "Only a page of this server may send a form."
        if request.path != "/" and not _is_one_of(
            request.cookies.get(self.cookie), [self._session]
        ):
            return STRANGER
        return None

    async def enter(self, request: web.Request) -> web.Response:
        """Exchange the token of an address for a cookie, and redirect to the first page."""
        token = request.query.get("token", "")
        if not _is_one_of(token, [self.token]) and not _is_one_of(
            request.cookies.get(self.cookie), [self._session]
        ):
            return web.Response(status=403, text=STRANGER)
        response = web.Response(status=303, headers={"Location": self.first})
        # Not Strict, because the file that the browser opens redirects here from another site.
        response.set_cookie(self.cookie, self._session, httponly=True, samesite="Lax")
        return response


def _is_from_a_page_of_ours(request: web.Request) -> bool:
    same_site = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    return same_site and request.headers.get("Origin") == f"http://{request.host}"


def _is_one_of(given: str | None, known: Iterable[str]) -> bool:
    sent = (given or "").encode(errors="surrogateescape")  # its bytes, if it is not valid text
    return any(hmac.compare_digest(sent, each.encode()) for each in known)
