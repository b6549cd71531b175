"""Who may see the pages, and who may write a note: whoever was given the address, here alone.

The server listens on 127.0.0.1. That alone does not keep others out:

    another user of this machine   can connect, too: the address that the command prints has a
                                   token, which its first visit turns into a cookie. A browser is
                                   started with a file that only the user may read and that leads
                                   there: others see the command line
    a web page elsewhere           can let its own name lead to this machine, and then reads what
                                   is served here as its own (DNS rebinding): the request names
                                   that host, and is refused
    any other web page             can post a form here, with the cookie where it comes from another
                                   port of this machine: browsers say where a request comes from

What is served may hold whatever a model has answered: texts are escaped (jinja2), and the policy
that goes with each page lets no script but ours run.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable

from aiohttp import web

# With any port: one that ssh forwards may be another
LOCAL_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")
HEADERS = {  # of every response, unless the page has its own
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # With `no-referrer` a form would be posted without its origin.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
STRANGER = (
    "This page is for the user who started it. Open the address that `unitune ui` printed: it has "
    "a token, which a browser keeps until the command ends."
)


class Access:
    """The tokens of one server.

    Args:
        port: Of the server: cookies are for all ports of a machine, so it stands in their name.
    """

    def __init__(self, port: int) -> None:
        # Cookies are for all ports of a machine.
        self.cookie = f"unitune-{port}"
        self.token = secrets.token_urlsafe(24)
        """For the address that is printed, which may be opened in several browsers."""
        self._session = secrets.token_urlsafe(24)

    def refusal(self, request: web.Request) -> str | None:
        """Return why a request is not answered; None where it is."""
        if not LOCAL_HOST.fullmatch(request.host):
            return "This server answers requests to 127.0.0.1 and localhost alone."
        if request.method not in ("GET", "HEAD") and not _is_from_a_page_of_ours(request):
            return "A note is written from a page of this server alone."
        if request.path != "/" and not _is_one_of(
            request.cookies.get(self.cookie), [self._session]
        ):
            return STRANGER
        return None

    async def enter(self, request: web.Request) -> web.Response:
        """Turn the token of an address into a cookie, and lead to the first page."""
        token = request.query.get("token", "")
        if not _is_one_of(token, [self.token]) and not _is_one_of(
            request.cookies.get(self.cookie), [self._session]
        ):
            return web.Response(status=403, text=STRANGER)
        response = web.Response(status=303, headers={"Location": "/runs"})
        # Not Strict: the file that the browser is started with leads here from another site.
        response.set_cookie(self.cookie, self._session, httponly=True, samesite="Lax")
        return response


def _is_from_a_page_of_ours(request: web.Request) -> bool:
    """Whether a request comes from a page of this very server, port included."""
    same_site = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    return same_site and request.headers.get("Origin") == f"http://{request.host}"


def _is_one_of(given: str | None, known: Iterable[str]) -> bool:
    sent = (given or "").encode(errors="surrogateescape")  # its very bytes, if they are no text
    return any(hmac.compare_digest(sent, each.encode()) for each in known)
