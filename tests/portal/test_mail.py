"""One-time links by e-mail, through a real mail server: to whom they go, and what nobody learns."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from portal.mail import Letter, open_post
from schemas.errors import MailFault, UserError
from store.records.people import Role, add_person
from store.settings import Settings
from tests.portal.certificates import certificate, for_server
from tests.portal.conftest import Site, opened
from tests.portal.mail_server import LetterBox, mail_server
from tests.records import at_home

A_LETTER = Letter("ann@x.example", "Hello", "Grüße, a line\n")


def settings_for(tmp_path: Path, url: str) -> Settings:
    return Settings(home=tmp_path, smtp_url=url, mail_from="bgbatch <no-reply@x.example>")  # type: ignore[arg-type]


def links_in(box: LetterBox) -> list[str]:
    return re.findall(r"http://127\.0\.0\.1:8080(/sign-in/[0-9a-f]{64})", "".join(map(text_of, box.letters)))


def text_of(letter) -> str:
    return letter.get_content()


def ask(site: Site, email: str):
    browser = site.browser().open("/sign-in")
    form = next(each for each in browser.forms if "Send me a link" in each.buttons)
    return browser.send(form.action, [("email", email)])


def test_a_person_gets_a_link_that_signs_them_in(tmp_path: Path) -> None:
    with mail_server() as (box, port), opened(settings_for(tmp_path, f"smtp+plain://127.0.0.1:{port}")) as site:
        site.account("Acme")
        assert "on its way" in ask(site, " Owner@ACME.example ").words
        (letter,) = box.letters
        assert (letter["To"], letter["From"]) == ("owner@acme.example", "bgbatch <no-reply@x.example>")
        assert "60 minutes" in text_of(letter)
        (link,) = links_in(box)
        browser = site.browser().open(link).press("Sign in")
        assert "AI Training Data" in browser.words
        assert "owner@acme.example" in browser.words


def test_who_is_in_several_accounts_gets_a_link_for_each(tmp_path: Path) -> None:
    with mail_server() as (box, port), opened(settings_for(tmp_path, f"smtp+plain://127.0.0.1:{port}")) as site:
        site.account("Acme")
        bazaar, _ = site.account("Bazaar")
        with site.records.transaction() as connection:
            add_person(connection, bazaar, "owner@acme.example", Role.AUDITOR, site.now, site.randomness)
        ask(site, "owner@acme.example")
        (letter,) = box.letters
        assert "Acme:" in text_of(letter)
        assert "Bazaar:" in text_of(letter)
        assert len(set(links_in(box))) == 2


def test_nobody_learns_who_has_an_account(tmp_path: Path) -> None:
    with mail_server() as (box, port), opened(settings_for(tmp_path, f"smtp+plain://127.0.0.1:{port}")) as site:
        site.account("Acme")
        known, unknown, none = (ask(site, each) for each in ("owner@acme.example", "eve@x.example", ""))
        assert known.html == unknown.html == none.html
        assert known.status == unknown.status == none.status == 200
        assert len(box.letters) == 1


def test_nobodys_letter_box_is_filled(tmp_path: Path) -> None:
    with mail_server() as (box, port), opened(settings_for(tmp_path, f"smtp+plain://127.0.0.1:{port}")) as site:
        site.account("Acme")
        pages = [ask(site, "owner@acme.example" if turn % 2 else "OWNER@acme.example") for turn in range(8)]
        assert len(box.letters) == 5
        assert {page.html for page in pages} == {pages[0].html}, "and who asks does not learn it"
        site.wait(hours=1)
        ask(site, "owner@acme.example")
        assert len(box.letters) == 6


def test_a_mail_fault_is_logged_without_the_address(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mail_server() as (box, port), opened(settings_for(tmp_path, f"smtp+plain://127.0.0.1:{port}")) as site:
        account_id, _ = site.account("Acme")
        with site.records.transaction() as connection:
            add_person(connection, account_id, "full@acme.example", Role.MEMBER, site.now, site.randomness)
        with caplog.at_level(logging.DEBUG):
            assert ask(site, "full@acme.example").status == 200
        assert box.letters == []
        said = "".join(each.getMessage() for each in caplog.records if each.name != "mail.log")  # the server's own
        assert "mail_fault" in said
        assert "552" in said, "whose fault it is"
        assert "full@" not in said
        assert "/sign-in/" not in said


def test_a_portal_on_this_machine_prints_the_letter_and_another_never_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    post = open_post(Settings(home=tmp_path))
    assert post is not None
    post(A_LETTER)
    assert "ann@x.example" in capsys.readouterr().out
    with opened(at_home(tmp_path)) as site:
        asked = site.browser().send("/sign-in", [("email", "ann@x.example")]).words
        assert "printed where this portal runs" in asked, "nobody waits for a letter that never comes"
    public = Settings(home=tmp_path, portal_url="https://cut.example")
    assert open_post(public) is None
    with opened(public) as site:
        assert "Send me a link" not in site.browser().open("/sign-in").words
        refused = site.browser().send("/sign-in", [("email", "owner@acme.example")])
        assert (refused.status, "sends no letters" in refused.words) == (400, True)


def test_a_password_travels_over_tls_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with mail_server(tls=for_server(path), login=("bg", "p@ss/word")) as (box, port):
        send(tmp_path, f"smtp://bg:p%40ss%2Fword@localhost:{port}")
        with pytest.raises(MailFault):
            send(tmp_path, f"smtp://bg:wrong@localhost:{port}")
    with mail_server(smtps=for_server(path)) as (other, port):
        send(tmp_path, f"smtps://localhost:{port}")
    assert [text_of(letter) for letter in (*box.letters, *other.letters)] == ["Grüße, a line\r\n"] * 2


def test_a_server_without_tls_or_with_a_strangers_certificate_gets_nothing(tmp_path: Path) -> None:
    with mail_server() as (box, port), pytest.raises(MailFault):
        send(tmp_path, f"smtp://bg:secret@localhost:{port}")
    with mail_server(tls=for_server(certificate(tmp_path))) as (other, port), pytest.raises(MailFault, match="SSL"):
        send(tmp_path, f"smtp://localhost:{port}")
    assert box.letters == other.letters == []


@pytest.mark.parametrize(
    "url",
    [
        *("http://mail.example", "mail.example:25", "smtp://", "smtp", "smtp://mail.example:99999"),
        *("smtp://bg:p#ss@mail.example:587", "smtp://bg:p/ss@mail.example", "smtp://bg:p%C3%A4ss@mail.example"),
        *("smtp://bg:p[ss@mail.example", "smtp://bg:#pass@mail.example", "smtp://bg:25?ss@mail.example"),
    ],
)
def test_a_mail_setting_that_cannot_be_used_is_named(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="BGBATCH_SMTP_URL") as named:
        open_post(settings_for(tmp_path, url))
    assert "ss" not in str(named.value).replace("password", ""), "nor any of the password"


@pytest.mark.parametrize("sender", ["Nord, Photos <photos@x.example>", "nobody", "", "Nord <photos>", "a@x.e, b@x.e"])
def test_a_sender_that_is_not_one_address_is_named(tmp_path: Path, sender: str) -> None:
    """Of a name with a comma two senders became, and the letter came from the first, which is nobody's address."""
    settings = settings_for(tmp_path, "smtp://mail.example").model_copy(update={"mail_from": sender})
    with pytest.raises(UserError, match="BGBATCH_MAIL_FROM"):
        open_post(settings)


@pytest.mark.parametrize(
    ("sender", "name"),
    [('"Müller, Söhne" <b@x.example>', "Müller, Söhne"), ("b@x.example", ""), ("B <b@localhost>\n", "B")],
)
def test_a_letter_comes_from_that_name(tmp_path: Path, sender: str, name: str) -> None:
    with mail_server() as (box, port):
        url = f"smtp+plain://127.0.0.1:{port}"
        post = open_post(settings_for(tmp_path, url).model_copy(update={"mail_from": sender}))
        assert post is not None
        post(A_LETTER)
    (letter,) = box.letters
    assert [each.display_name for each in letter["From"].addresses] == [name]
    assert letter["Subject"] == A_LETTER.subject, "a line break at the setting's end ends no head"


def send(tmp_path: Path, url: str) -> None:
    post = open_post(settings_for(tmp_path, url))
    assert post is not None
    post(A_LETTER)
