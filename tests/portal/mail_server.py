"""A real SMTP server on this machine that keeps the letters it gets."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

from tests.ports import free_port


class LetterBox:
    """Takes every letter, except for one address that it refuses."""

    def __init__(self) -> None:
        self.letters: list[EmailMessage] = []

    async def handle_RCPT(self, server, session, envelope, address: str, options) -> str:
        if address.startswith("full@"):
            return "552 mailbox full"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:
        letter = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(letter, EmailMessage)
        self.letters.append(letter)
        return "250 OK"


@contextmanager
def mail_server(
    tls: ssl.SSLContext | None = None, smtps: ssl.SSLContext | None = None, login: tuple[str, str] | None = None
) -> Iterator[tuple[LetterBox, int]]:
    """The letters that come, and the port. `tls`: offers STARTTLS. `smtps`: encrypted from the first byte."""
    box = LetterBox()

    def is_right(server: SMTP, session, envelope, mechanism: str, data) -> AuthResult:
        given = (data.login.decode(), data.password.decode())
        return AuthResult(success=given == login, handled=False)

    options: dict[str, object] = {"tls_context": tls}
    if login is not None:
        options |= {"authenticator": is_right, "auth_required": True, "auth_require_tls": tls is not None}
    options |= {"ssl_context": smtps, "ready_timeout": 60}
    controller = Controller(box, hostname="127.0.0.1", port=free_port(), **options)
    controller.start()
    try:
        yield box, controller.port
    finally:
        controller.stop()
