"""The web application: pages, their safety headers, and what a person sees when something goes wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware

from portal.api.app import create_api
from portal.api.problems import status_of
from portal.api.uploads import Tus
from portal.mail import open_post
from portal.oidc import open_provider
from portal.outcomes import Outcomes
from portal.web import (
    account,
    account_close,
    account_keys,
    account_people,
    account_purge,
    account_webhooks,
    batch_pages,
    certificates,
    health,
    nights,
    previews,
    provider,
    sign_in,
    upload_page,
)
from portal.web.access_log import NO_TELEMETRY, AccessLog
from portal.web.body_limit import BodyLimit
from portal.web.drawing import Drawer
from portal.web.limits import limited_posts
from portal.web.portal import HERE, Portal, open_templates, same_site
from schemas.clock import Clock
from schemas.errors import BgbatchError, SignInNeeded
from schemas.ids import Randomness
from store.records.database import Records
from store.settings import Settings
from store.transient.transient_store import TransientStore

_log = logging.getLogger(__name__)

_CONTENT = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _CONTENT,
    "X-Frame-Options": "DENY",  # for browsers that do not know frame-ancestors
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": with it, browsers send our own forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_NO_PAGE = {
    404: "There is no page at this address.",
    405: "This page cannot be asked for in that way. Go back and try again.",
}
_NO_FORM = "The form did not come whole, so nothing was changed. Go back to the page and try again."


def create_app(
    settings: Settings,
    records: Records,
    transient: TransientStore,
    clock: Clock,
    randomness: Randomness,
) -> FastAPI:
    """The portal on these parts. It opens nothing by itself."""
    # A redirect for a slash too many would lead to the host that the request named, and to http behind a TLS proxy.
    app = FastAPI(
        title="bgbatch",
        telemetry=NO_TELEMETRY,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.portal = Portal(
        settings,
        records,
        transient,
        clock,
        randomness,
        open_templates(),
        post=open_post(settings),
        provider=open_provider(settings, clock),
        outcomes=Outcomes(records, transient),
    )
    app.state.drawing = asyncio.Semaphore(1)
    app.state.drawer = Drawer()
    app.state.serving = health.Serving()
    app.add_middleware(ServerErrorMiddleware, handler=_say_that_it_is_ours)  # inside of what adds the headers
    app.add_middleware(BodyLimit, portal=app.state.portal)
    app.add_middleware(Tus)
    app.middleware("http")(_safety_headers)
    app.add_middleware(AccessLog, randomness=randomness)
    app.add_exception_handler(BgbatchError, _say_what_went_wrong)
    app.add_exception_handler(RequestValidationError, _say_what_is_misshapen)
    app.add_exception_handler(HTTPException, _say_what_there_is_not)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    for router in (
        provider.router,
        sign_in.router,
        account.router,
        account_people.router,
        account_keys.router,
        account_webhooks.router,
        account_purge.router,
        account_close.router,
        certificates.router,
        upload_page.router,  # before the batches: /batches/new is no batch
        batch_pages.router,
        previews.router,
        nights.router,
    ):
        app.include_router(router, dependencies=[Depends(_only_our_own_posts), Depends(limited_posts)])
    app.include_router(health.router)
    app.mount("/v1", create_api(app.state.portal))
    return app


def _only_our_own_posts(request: Request) -> None:
    if request.method not in ("GET", "HEAD"):
        same_site(request, request.app.state.portal)


async def _safety_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    # A browser may keep them, but asks each time: after an upgrade, new pages need their new scripts.
    is_static = request.url.path.startswith("/static/")
    response.headers["Cache-Control"] = "no-cache" if is_static else "no-store"
    if request.app.state.portal.is_https:
        response.headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
    return response


def _say_what_went_wrong(request: Request, error: Exception) -> Response:
    if isinstance(error, SignInNeeded) and request.method == "GET":
        return sign_in.ask_to_sign_in(request.app.state.portal, request.url.path)
    assert isinstance(error, BgbatchError)
    status = status_of(error)
    if status >= 500:
        _log.warning("%s: %s", error.code, error)
    answer = _problem(request, status, str(error))
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def _say_that_it_is_ours(request: Request, _error: Exception) -> Response:
    """What nobody foresaw, such as a database that is away. The log has it; nothing of it is shown."""
    return _problem(request, 500, "Something went wrong on our side. Try again after a while.")


def _say_what_is_misshapen(request: Request, error: Exception) -> Response:
    """A form without its fields: none of ours, or sent by hand. What was sent is not repeated."""
    return _problem(request, 422, _NO_FORM)


def _say_what_there_is_not(request: Request, error: Exception) -> Response:
    """What FastAPI itself answers: no such page, or a form that cannot be read."""
    assert isinstance(error, HTTPException)
    answer = _problem(request, error.status_code, _NO_PAGE.get(error.status_code, _NO_FORM))
    answer.headers.update(error.headers or {})
    return answer


def _problem(request: Request, status: int, sentence: str) -> Response:
    """The page that says what went wrong, with the ways on of whoever is known to be signed in."""
    portal: Portal = request.app.state.portal
    return portal.page("problem.html", status, session=getattr(request.state, "session", None), sentence=sentence)
