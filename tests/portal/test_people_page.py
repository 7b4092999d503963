"""People on a page: an owner lets them in and takes them out, and nobody comes in, or decides, as somebody else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from consent import ledger
from portal.web.limits import ADDED
from portal.web.portal import owner as owner_of_a_form
from schemas.ids import PersonId
from schemas.industries import Industry
from store.records.api_keys import create_key
from store.records.attempts import wait_before_trying
from store.records.people import Person, Role, add_person, people_of, remove_person, set_role
from store.records.sessions import find_session
from store.settings import Settings
from tests.portal.browsing import Browser
from tests.portal.conftest import Site, opened
from tests.portal.mail_server import mail_server
from tests.portal.provider_server import CLIENT, SECRET, identity_provider
from tests.portal.test_account_page import say_yes
from tests.portal.test_keys_and_limits import make_key
from tests.portal.test_mail import links_in, settings_for, text_of

PAGE = "/account/people"
ANN = "ann@acme.example"


def add(browser: Browser, email: str = ANN, role: str = "member") -> Browser:
    """As the form does: of a list of choices this browser knows nothing."""
    (form,) = [each for each in browser.open(PAGE).forms if "Add them" in each.buttons]
    (token,) = [pair for pair in form.fields if pair[0] == "form_token"]
    return browser.send(form.action, [token, ("email", email), ("role", role)])


def send(browser: Browser, person: Person, what: str, *fields: tuple[str, str]) -> Browser:
    token = form_token(browser.open("/account"))
    return browser.send(f"{PAGE}/{person.person_id}/{what}", [("form_token", token), *fields])


def people(site: Site, account: str = "Acme") -> dict[str, Person]:
    account_id = site.account(account)[0]
    with site.records.reading() as connection:
        return {each.email: each for each in people_of(connection, account_id)}


def ann_in(site: Site, role: Role = Role.MEMBER) -> Person:
    account_id = site.account("Acme")[0]
    with site.records.transaction() as connection:
        add_person(connection, account_id, ANN, role, site.now, site.randomness)
    return people(site)[ANN]


def in_list(browser: Browser, email: str) -> str:
    """What the page says beside somebody's address."""
    (item,) = re.findall(rf'<li>\s*<div><strong class="path">{re.escape(email)}</strong>(.*?)</li>', browser.html, re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", item).split()).replace(" ,", ",")


def form_token(browser: Browser) -> str:
    return dict(browser.forms[0].fields)["form_token"]


def is_in(browser: Browser) -> bool:
    """Whether this browser is signed in."""
    return "Sign out" in browser.open("/account").words


def test_who_is_added_gets_a_letter_and_its_link_is_nowhere_else(tmp_path: Path) -> None:
    with mail_server() as (box, port), opened(settings_for(tmp_path, f"smtp+plain://127.0.0.1:{port}")) as site:
        owner = site.sign_in()
        page = add(owner, f" {ANN} ", "auditor")
        assert (page.status, f"{ANN} was added. A letter with a link that works once is on its way." in page.words) == (
            200,
            True,
        )
        (letter,) = box.letters
        assert letter["To"] == ANN
        assert "An owner of Acme has added you to that account on bgbatch, as auditor." in text_of(letter)
        (link,) = links_in(box)
        assert set(re.findall("[0-9a-f]{64}", page.html)) == {form_token(page)}, "no link is shown"
        site.wait(minutes=5)
        ann = site.browser().open(link).press("Sign in")
        assert ann.at == "/account"
        assert ANN in ann.words
        assert people(site)[ANN].role is Role.AUDITOR
        said = in_list(owner.open(PAGE), ANN)
        assert said.startswith("auditor Since 25 Nov 2026, 12:00 UTC, added by owner@acme.example")
        assert "Signed in last 25 Nov 2026, 12:05 UTC" in said


def test_the_ledger_names_whoever_pressed(tmp_path: Path) -> None:
    with mail_server() as (box, port), opened(settings_for(tmp_path, f"smtp+plain://127.0.0.1:{port}")) as site:
        owner = add(site.sign_in(), role="owner")
        (link,) = links_in(box)
        say_yes(site.browser().open(link).press("Sign in"), Industry.STUDIO)
        say_yes(owner, Industry.AUTOMOTIVE)
        with site.records.reading() as connection:
            pressed = [(each.industry, each.actor) for each in ledger.read_events(connection)]
        own = people(site)
        assert pressed == [
            (Industry.STUDIO, own[ANN].person_id),
            (Industry.AUTOMOTIVE, own["owner@acme.example"].person_id),
        ]


def test_a_letter_that_is_lost_is_told_and_costs_nobody_their_place(tmp_path: Path) -> None:
    with mail_server() as (box, port), opened(settings_for(tmp_path, f"smtp+plain://127.0.0.1:{port}")) as site:
        page = add(site.sign_in(), "full@acme.example")
        assert "full@acme.example was added, but the letter to them could not be sent." in page.words
        assert "They come in with a link that they ask for on the sign-in page." in page.words
        for _ in range(6):
            add(page)
            send(page, people(site)[ANN], "remove")
        assert len(box.letters) == 5, "nobody's letter box is filled"


def test_without_letters_it_is_said_how_they_come_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with identity_provider() as provider:
        told = {}
        for name, settings in (
            ("neither", Settings(home=tmp_path / "1", portal_url="https://cut.example")),
            (
                "provider",
                Settings(
                    home=tmp_path / "2",
                    portal_url="https://cut.example",
                    oidc_issuer=provider.issuer,
                    oidc_client_id=CLIENT,
                    oidc_client_secret=SecretStr(SECRET),
                    oidc_name="Acme ID",
                ),
            ),
            ("here", Settings(home=tmp_path / "3")),
        ):
            with opened(settings) as site:
                browser = site.browser()
                browser.client.base_url = browser.client.base_url.copy_with(scheme="https")  # cookies insist on it
                told[name] = add(browser.open(site.link(site.account("Acme")[1])).press("Sign in")).words
    assert "sends no letters: they come in with a link from whoever runs this portal." in told["neither"]
    assert "sends no letters: they come in with Acme ID on the sign-in page." in told["provider"]
    assert "is printed where this portal runs" in told["here"]
    assert "A letter to ann@acme.example" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("email", "role", "problem"),
    [
        ("nobody", "member", "That is no e-mail address."),
        ("a@x.example, b@x.example", "member", "That is no e-mail address."),
        ("OWNER@acme.example", "member", "The account has a person with that address."),
        (ANN, "king", "Choose what the person may do."),
        (ANN, "", "Choose what the person may do."),
    ],
)
def test_what_cannot_be_is_told_beside_what_was_typed_and_lets_nobody_in(
    site: Site, email: str, role: str, problem: str
) -> None:
    page = add(site.sign_in(), email, role)
    assert (page.status, problem in page.words) == (400, True)
    assert f'value="{email}"' in page.html
    assert [*people(site)] == ["owner@acme.example"]


def test_a_role_is_changed_at_once_and_whose_it_is_signs_in_anew(site: Site) -> None:
    owner, ann = site.sign_in(), ann_in(site)
    anns = site.browser().open(site.link(ann.person_id)).press("Sign in")
    assert send(owner, ann, "role", ("role", "member")).at == PAGE
    assert is_in(anns), "the role that they have changes nothing"
    assert send(owner, ann, "role", ("role", "king")).status == 400
    assert send(owner, ann, "role", ("role", "auditor")).at == PAGE
    assert in_list(owner, ANN).startswith("auditor")
    assert not is_in(anns)
    assert people(site)[ANN].role is Role.AUDITOR


def test_who_is_taken_out_is_out_at_once_and_their_keys_are_named(site: Site) -> None:
    owner, ann, own = site.sign_in(), ann_in(site, Role.OWNER), site.account("Acme")[1]
    anns = site.browser().open(site.link(ann.person_id)).press("Sign in")
    with site.records.transaction() as connection:
        for name, maker in (("nightly", ann.person_id), ("shop", ann.person_id), ("own", own)):
            create_key(connection, ann.account_id, maker, name, site.now, site.randomness)
    link = site.link(ann.person_id)
    assert "so do 2 API keys that they made: revoke what should end, too." in in_list(owner.open(PAGE), ANN)
    (nth,) = [n for n, form in enumerate(takings(owner)) if ann.person_id in form]
    owner.press("Take them out for good", nth=nth)
    assert (owner.at, ANN in owner.html) == (PAGE, False)
    assert not is_in(anns)
    assert site.browser().open(link).status == 410
    assert send(owner, ann, "remove").status == 404


def takings(browser: Browser) -> list[str]:
    return [each.action for each in browser.forms if "Take them out for good" in each.buttons]


@pytest.mark.parametrize(("what", "fields"), [("remove", ()), ("role", (("role", "member"),))])
def test_who_takes_themself_out_or_is_no_owner_any_more_is_signed_out(
    site: Site, what: str, fields: tuple[tuple[str, str], ...]
) -> None:
    ann_in(site, Role.OWNER)
    owner, second = site.sign_in(), site.sign_in()
    left = send(owner, people(site)["owner@acme.example"], what, *fields)
    assert left.at == "/sign-in"
    assert owner.client.cookies.get("bgbatch") is None
    assert not is_in(second), "everywhere"
    left_in = people(site)
    assert left_in[ANN].role is Role.OWNER
    assert ("owner@acme.example" in left_in) == (what == "role")


def test_the_only_owner_stays(site: Site) -> None:
    ann_in(site)
    owner = site.sign_in().open(PAGE)
    me = people(site)["owner@acme.example"]
    assert "The only owner: make somebody else an owner before you go." in in_list(owner, me.email)
    assert not any(me.person_id in each.action for each in owner.forms)
    for what, fields in (("remove", ()), ("role", [("role", "auditor")])):
        refused = send(owner, me, what, *fields)
        assert (refused.status, "That is the account's only owner." in refused.words) == (403, True)
        assert "In the account" in refused.words, "on the page where it can be mended"
    assert people(site)[me.email].role is Role.OWNER
    assert is_in(owner)


@pytest.mark.parametrize("role", [Role.MEMBER, Role.AUDITOR])
def test_others_see_who_is_there_and_change_nobody(site: Site, role: Role) -> None:
    site.sign_in()
    other, ann = site.sign_in_as(role).open(PAGE), ann_in(site)
    assert "Only an owner of the account can add people" in other.words
    assert in_list(other, "owner@acme.example") == "owner Since 25 Nov 2026, 12:00 UTC", "not when somebody came in"
    assert [each.action for each in other.forms] == ["/sign-out"]
    for what in ("role", "remove"):
        assert send(other, ann, what, ("role", "owner")).status == 403
    token = form_token(other.open("/account"))
    added = other.send(PAGE, [("form_token", token), ("email", "eve@x.example"), ("role", "owner")])
    assert added.status == 403
    assert {each.email: each.role for each in people(site).values()}.get(ANN) is Role.MEMBER
    assert "eve@x.example" not in people(site)


def test_people_of_another_account_are_neither_seen_nor_changed(site: Site) -> None:
    ann, stranger = ann_in(site), site.sign_in("Bazaar").open(PAGE)
    assert "acme.example" not in stranger.html
    for what in ("role", "remove"):
        assert send(stranger, ann, what, ("role", "owner")).status == 404
    assert people(site)[ANN] == ann


def test_an_owner_who_was_taken_out_after_their_form_was_checked_changes_nobody(site: Site) -> None:
    """Between the check of a form and what it changes somebody else may have been quicker."""
    site.sign_in()
    ann, bob = ann_in(site, Role.OWNER), "bob@acme.example"
    anns = site.browser().open(site.link(ann.person_id)).press("Sign in")
    with site.records.transaction() as connection:
        add_person(connection, ann.account_id, bob, Role.MEMBER, site.now, site.randomness)
        session = find_session(connection, anns.client.cookies["bgbatch"], site.now)
    assert session is not None
    site.app.dependency_overrides[owner_of_a_form] = lambda: session
    own = people(site)
    changes = [
        (PAGE, [("email", "eve@x.example"), ("role", "owner")]),
        (f"{PAGE}/{own[bob].person_id}/role", [("role", "owner")]),
        (f"{PAGE}/{own[bob].person_id}/remove", []),
    ]
    with site.records.transaction() as connection:
        set_role(connection, ann.account_id, ANN, Role.MEMBER)
    assert [anns.send(*each).status for each in changes] == [403, 403, 403]
    with site.records.transaction() as connection:
        remove_person(connection, ann.account_id, ANN)
    assert [anns.send(*each).status for each in changes] == [403, 403, 403]
    left = {each.email: each.role for each in people(site).values()}
    assert left == {"owner@acme.example": Role.OWNER, bob: Role.MEMBER}


def test_no_key_lets_anybody_in(site: Site) -> None:
    """Else a key could grant, by an owner of its own."""
    owner = site.sign_in()
    program = site.browser(headers={"x-api-key": make_key(owner)}).client
    form = {"form_token": form_token(owner), "email": "eve@x.example", "role": "owner"}
    for path in (PAGE, f"{PAGE}/{site.account('Acme')[1]}/role", f"{PAGE}/{site.account('Acme')[1]}/remove"):
        assert program.post(path, data=form).status_code == 401
        assert program.post(f"/v1{path}", json=form).status_code == 404
    assert [*people(site)] == ["owner@acme.example"]


def test_an_account_adds_so_many_people_in_an_hour_and_no_more(site: Site) -> None:
    owner, stranger = site.sign_in(), site.sign_in("Bazaar")
    account_id = site.account("Acme")[0]
    with site.records.transaction() as connection:
        for _ in range(ADDED.most):
            wait_before_trying(connection, ADDED, account_id, site.now)
    assert add(owner).status == 429
    assert ANN not in people(site)
    assert add(stranger, "bob@bazaar.example").status == 200, "others do not wait for it"
    site.wait(hours=1)
    assert add(owner).status == 200


def test_an_address_is_shown_as_text(site: Site) -> None:
    odd = "'&{{7*7}}@x.example"
    page = add(site.sign_in(), odd)
    assert page.status == 200
    assert "&#39;&amp;{{7*7}}@x.example" in page.html
    assert PersonId(people(site)[odd].person_id) in page.html
