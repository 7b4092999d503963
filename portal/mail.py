"""Letters: one-time sign-in links by e-mail. Without a mail server, a portal on this machine prints them instead.

A link lets somebody in, so it never goes into a log, and a portal that others reach never prints one.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from urllib.parse import SplitResult, unquote, urlsplit

from schemas.errors import MailFault, UserError
from store.records.sessions import LINK_LIFE
from store.settings import THIS_MACHINE, Settings

_SECONDS = 20
"""How long the mail server may take."""

_PORTS = {"smtp": 587, "smtps": 465, "smtp+plain": 25}
_MINUTES = LINK_LIFE // timedelta(minutes=1)
_MISREAD = (
    "BGBATCH_SMTP_URL cannot be told apart into user, password, host and port. In the first two write / ? # @ [ and ] "
    "as %2F %3F %23 %40 %5B and %5D."
)


@dataclass(frozen=True)
class Letter:
    """What is sent to one address."""

    to: str
    subject: str
    text: str


Post = Callable[[Letter], None]
"""Sends a letter. Raises `MailFault`."""


def open_post(settings: Settings) -> Post | None:
    """How letters are sent; None when they cannot be. Raises `UserError` for a setting that cannot be used."""
    if settings.smtp_url.get_secret_value():
        return _by_smtp(_server(settings.smtp_url.get_secret_value()), _one_sender(settings.mail_from.strip()))
    if urlsplit(settings.portal_url).hostname in THIS_MACHINE:
        return _print
    return None


def sign_in_letter(to: str, links: list[tuple[str, str]]) -> Letter:
    """The letter with one link for each account, as (account's name, address)."""
    lines = ["Somebody, most likely you, asked to sign in to bgbatch.", ""]
    for name, address in links:
        lines += [f"{name}:" if len(links) > 1 else "Open this to sign in:", address, ""]
    lines += [
        f"A link works once, within {_MINUTES} minutes.",
        "If it was not you, do nothing: without the link nobody gets in.",
    ]
    return Letter(to, "Your sign-in link for bgbatch", "\n".join(lines) + "\n")


def invitation(to: str, account: str, role: str, portal: str, token: str) -> Letter:
    """The letter to somebody whom an owner has added to an account."""
    lines = [
        f"An owner of {account} has added you to that account on bgbatch, as {role}.",
        "",
        "Open this to sign in:",
        f"{portal}/sign-in/{token}",
        "",
        f"The link works once, within {_MINUTES} minutes. Later, sign in at {portal}/sign-in",
        "If you do not know that account, do nothing: without you nobody comes in under your address.",
    ]
    return Letter(to, "You were added to an account on bgbatch", "\n".join(lines) + "\n")


def _print(letter: Letter) -> None:
    print(f"A letter to {letter.to}, printed because there is no mail server:\n{letter.text}")  # noqa: T201


def _by_smtp(server: SplitResult, sender: str) -> Post:
    def send(letter: Letter) -> None:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = sender, letter.to, letter.subject
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=_domain(sender))
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(letter.text)
        try:
            _hand_over(server, message)
        except (OSError, smtplib.SMTPException) as error:
            raise MailFault(f"The mail server did not take a letter: {_told(error)}. Check BGBATCH_SMTP_URL.") from None

    return send


def _told(error: OSError | smtplib.SMTPException) -> str:
    """The kind of fault and the server's number; its words may hold the address."""
    numbers = {getattr(error, "smtp_code", None)} - {None}
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        numbers = {number for number, _ in error.recipients.values()}
    return " ".join([type(error).__name__, *map(str, numbers)])


def _hand_over(server: SplitResult, message: EmailMessage) -> None:
    host, port = server.hostname or "", server.port or _PORTS[server.scheme]
    trusted = ssl.create_default_context()
    connection = (
        smtplib.SMTP_SSL(host, port, timeout=_SECONDS, context=trusted)
        if server.scheme == "smtps"
        else smtplib.SMTP(host, port, timeout=_SECONDS)
    )
    with connection as smtp:
        if server.scheme == "smtp":
            smtp.starttls(context=trusted)  # a server that does not offer it gets no letter
        if server.username:
            smtp.login(unquote(server.username), unquote(server.password or ""))
        smtp.send_message(message)


def _server(url: str) -> SplitResult:
    try:
        server = urlsplit(url)
        _ = server.port
    except ValueError:  # its words may hold a part of the password
        raise UserError(_MISREAD) from None
    if server.scheme not in _PORTS or not server.hostname:
        raise UserError(f"BGBATCH_SMTP_URL must be one of {', '.join(f'{each}://host' for each in _PORTS)}.")
    if server.path.strip("/") or server.query or server.fragment:  # the password's end, and the host
        raise UserError(_MISREAD)
    if not unquote(f"{server.username}{server.password}").isascii():
        raise UserError("BGBATCH_SMTP_URL: user and password must be of ASCII letters. No other is sent by SMTP here.")
    return server


def _one_sender(sender: str) -> str:
    head = EmailMessage()
    head["From"] = sender
    if [bool(each.username and each.domain) for each in head["From"].addresses] != [True]:
        raise UserError(
            'BGBATCH_MAIL_FROM must be one address, such as "Nord, Photos" <photos@example.com>: '
            "a name in which commas stand is put in quotes."
        )
    return sender


def _domain(sender: str) -> str:
    return parseaddr(sender)[1].rpartition("@")[2] or "localhost"
