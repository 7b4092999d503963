"""Sign-in through a real OpenID Connect provider over HTTP, honest and lying."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from pydantic import SecretStr
from starlette.testclient import TestClient

from portal import oidc
from portal.oidc import open_provider
from schemas.clock import system_clock
from schemas.errors import ProviderFault, UserError
from store.records.people import Role, add_person, person_of_identity
from store.records.provider_sign_ins import LIFE
from store.settings import Settings
from tests.portal.browsing import Browser
from tests.portal.chromium import serving
from tests.portal.conftest import Site, opened
from tests.portal.provider_server import CLIENT, SECRET, Claims, IdentityProvider, Lies, identity_provider
from tests.records import at_home

OWNER: Claims = {"sub": "owner-1", "email": "Owner@acme.example", "email_verified": True}


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as provider:
        provider.person = dict(OWNER)
        yield provider


@pytest.fixture
def site(provider: IdentityProvider, tmp_path: Path) -> Iterator[Site]:
    with opened(settings_for(provider, tmp_path)) as site:
        provider.now = lambda: site.now.timestamp()
        site.account("Acme")
        yield site


def settings_for(provider: IdentityProvider, tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path,
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT,
        oidc_client_secret=SecretStr(SECRET),
        oidc_name="Acme ID",
    )


def go(client: TestClient) -> str:
    """To the provider and back; where it sends the browser."""
    answer = client.get("/sign-in/provider/go", follow_redirects=False)
    assert answer.status_code == 303
    sent = requests.get(answer.headers["location"], allow_redirects=False, timeout=60)
    return sent.headers["location"].removeprefix("http://127.0.0.1:8080")


def comes_in(site: Site, is_asked: bool | None = None) -> bool:
    """Whether the whole way ends on the account page. `is_asked`: and whether it leads past a question."""
    browser = site.browser()
    browser.open(go(browser.client))
    asked = "Press to sign in to Acme as" in browser.words
    if asked:
        browser.press("Sign in")
    is_in = "AI Training Data" in browser.words and "Sign out" in browser.words
    assert (browser.status == 200) == is_in
    assert is_asked is None or is_asked == asked
    return is_in


def test_the_page_offers_the_provider_by_its_name(site: Site) -> None:
    page = site.browser().open("/sign-in")
    assert "Sign in with Acme ID" in page.words
    assert 'href="/sign-in/provider/go"' in page.html


def test_a_verified_address_comes_in_and_is_then_known_by_the_providers_own_id(
    site: Site, provider: IdentityProvider
) -> None:
    assert comes_in(site, is_asked=True)
    provider.person = {"sub": "owner-1", "email": "renamed@acme.example", "email_verified": True}
    assert comes_in(site, is_asked=False), "known by the id"
    provider.person = {"sub": "somebody-else", "email": "owner@acme.example", "email_verified": True}
    assert not comes_in(site), "an address that was given to somebody else does not open the account"


def test_an_address_that_stands_in_no_id_token_is_asked_for_and_must_be_the_same_persons(
    site: Site, provider: IdentityProvider
) -> None:
    """So certified providers answer, unless they are told otherwise: nobody could come in for the first time."""
    provider.tells_apart = True
    provider.tells_of = {"sub": "somebody-else"}
    assert not comes_in(site)
    provider.tells_of = {}
    assert comes_in(site, is_asked=True)
    provider.tells_of = {"sub": "somebody-else"}
    assert comes_in(site), "who is known already is asked for no address"


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_address_that_the_provider_has_not_verified_is_nobody(
    site: Site, provider: IdentityProvider, verified: object, apart: bool
) -> None:
    provider.tells_apart = apart
    provider.person = {**OWNER, "email_verified": verified}
    assert not comes_in(site)


@pytest.mark.parametrize("email", ["owner@stra\u00dfe.example", "owner@\u017ftrasse.example", "owner@STRASSE.EXAMPLE"])
def test_an_address_that_only_looks_alike_in_small_letters_is_somebody_elses(
    site: Site, provider: IdentityProvider, email: str
) -> None:
    """Domains with and without `ß` are two, with two owners; the long `\u017f` becomes `s`."""
    account_id, _ = site.account("Acme")
    with site.records.transaction() as connection:
        add_person(connection, account_id, "owner@strasse.example", Role.OWNER, site.now, site.randomness)
    provider.person = {"sub": "another-1", "email": email, "email_verified": True}
    assert comes_in(site) == email.isascii()


@pytest.mark.parametrize("email", ["eve@x.example", None])
def test_who_is_in_no_account_does_not_come_in(site: Site, provider: IdentityProvider, email: str | None) -> None:
    provider.person = {**OWNER, "email": email}
    assert not comes_in(site)


def add_to_bazaar(site: Site, role: Role = Role.MEMBER) -> None:
    bazaar, _ = site.account("Bazaar")
    with site.records.transaction() as connection:
        add_person(connection, bazaar, "owner@acme.example", role, site.now, site.randomness)


def test_who_was_added_to_a_strangers_account_is_asked_before_they_are_in_it(
    site: Site, provider: IdentityProvider
) -> None:
    """Else photos that are meant for an account of one's own would go to a stranger's, from then on."""
    provider.person = {"sub": "ann-1", "email": "ann@x.example", "email_verified": True}
    stranger, _ = site.account("Bazaar")
    with site.records.transaction() as connection:
        add_person(connection, stranger, "ann@x.example", Role.OWNER, site.now, site.randomness)
    browser = site.browser()
    browser.open(go(browser.client))
    assert "Press to sign in to Bazaar as a…@x.example on this device." in browser.words
    assert "one-time link" in browser.open("/account").words, "nobody is signed in"
    with site.records.transaction() as connection:
        assert person_of_identity(connection, provider.issuer, "ann-1") is None
        acme, _ = site.account("Acme")
        add_person(connection, acme, "ann@x.example", Role.MEMBER, site.now, site.randomness)
    browser.open(go(browser.client))
    assert browser.status == 200, "and it keeps nobody from their own"
    browser.press("Sign in", nth=[each.action for each in browser.forms].index(link_to(browser, "Acme")))
    assert "ann@x.example" in browser.words
    assert comes_in(site, is_asked=False)


def link_to(browser: Browser, account: str) -> str:
    """The link beside the account's name."""
    (path,) = re.findall(rf"<strong>{account}</strong>\s*<form method=\"post\" action=\"(\S+)\"", browser.html)
    return str(path)


def test_who_is_in_two_accounts_chooses_one_and_comes_to_that_from_then_on(
    site: Site, provider: IdentityProvider
) -> None:
    add_to_bazaar(site)
    browser = site.browser()
    browser.open(go(browser.client))
    assert "Your address is in several accounts here." in browser.words
    acme, bazaar = (link_to(browser, name) for name in ("Acme", "Bazaar"))
    assert browser.send(acme, []).at == "/account"
    assert "owner@acme.example" in browser.words
    other = site.browser().send(bazaar, [])
    assert (other.status, "you come to another account" in other.words) == (403, True)
    assert comes_in(site, is_asked=False)
    with site.records.transaction() as connection:
        known = person_of_identity(connection, provider.issuer, "owner-1")
    assert known is not None
    assert known.account_id == site.account("Acme")[0]


def test_a_refusal_at_the_provider_signs_nobody_in(site: Site, provider: IdentityProvider) -> None:
    provider.person = {}
    assert not comes_in(site)


def test_what_is_asked_is_fresh_each_time_and_uses_pkce(site: Site, provider: IdentityProvider) -> None:
    for _ in range(2):
        go(site.browser().client)
    first, second = provider.asked
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name]) >= 43
        assert first[name] != second[name]
    assert first["code_challenge_method"] == "S256"
    assert first["redirect_uri"] == "http://127.0.0.1:8080/sign-in/provider/back"


def test_the_cookie_for_the_way_back_is_kept_from_scripts_and_other_sites(
    provider: IdentityProvider, tmp_path: Path
) -> None:
    flags = {"httponly", "path=/", "samesite=lax", "secure"}
    settings = settings_for(provider, tmp_path).model_copy(update={"portal_url": "https://cut.example"})
    with opened(settings) as site:
        provider.now = lambda: site.now.timestamp()
        site.account("Acme")
        client = TestClient(site.app, base_url="https://cut.example")
        cookie, *told = client.get("/sign-in/provider/go", follow_redirects=False).headers["set-cookie"].split("; ")
        assert cookie.startswith("__Host-bgbatch-provider=")
        assert {each.lower() for each in told} == flags | {"max-age=900"}
        came_in = client.get(go(client), follow_redirects=False)
    ((cookie, *told),) = (each.split("; ") for each in came_in.headers.get_list("set-cookie"))
    assert cookie == '__Host-bgbatch-provider=""'
    assert flags | {"max-age=0"} <= {each.lower() for each in told}


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param(lambda claims: claims | {"iss": "https://other.example"}, id="another issuer"),
        pytest.param(lambda claims: claims | {"aud": "another-client"}, id="for another client"),
        pytest.param(lambda claims: claims | {"aud": [CLIENT, "b"], "azp": "b"}, id="for another party"),
        pytest.param(lambda claims: claims | {"exp": claims["iat"] - 100}, id="expired"),
        pytest.param(lambda claims: claims | {"iat": claims["iat"] + 3600}, id="from the future"),
        pytest.param(lambda claims: claims | {"nonce": "replayed"}, id="another nonce"),
        *(
            pytest.param(lambda claims, name=name: {k: v for k, v in claims.items() if k != name}, id=f"no {name}")
            for name in ("iss", "aud", "exp", "nonce", "sub")
        ),
    ],
)
def test_a_token_that_says_something_else_is_not_believed(site: Site, provider: IdentityProvider, claims) -> None:
    provider.lies = Lies(claims=claims)
    assert not comes_in(site)
    provider.lies = Lies()
    assert comes_in(site), "the same way with the truth"


@pytest.mark.parametrize(
    "signs_with", ["another key", "the client's secret", "its public key, as if it were a secret", "nothing"]
)
def test_a_token_that_is_not_signed_by_the_providers_key_is_not_believed(
    site: Site, provider: IdentityProvider, signs_with: str
) -> None:
    provider.lies = Lies(signs_with=signs_with)
    assert not comes_in(site)


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "EC", "crv": "brainpoolP256r1", "kid": "2", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "X9", "kid": "2", "x": "AA"},
        {"kid": "2"},
    ],
)
def test_a_key_of_an_unknown_kind_beside_the_one_that_signs_keeps_nobody_out(
    site: Site, provider: IdentityProvider, key: object
) -> None:
    provider.more_keys = [key]
    assert comes_in(site)
    provider.lies = Lies(signs_with="another key")
    assert not comes_in(site)


def test_an_answer_for_another_browser_or_a_second_time_is_refused(site: Site) -> None:
    mine, theirs = site.browser().client, site.browser().client
    stolen, own = go(theirs), go(mine)
    assert mine.get(stolen).status_code == 403, "the code of another browser's sign-in"
    assert theirs.get(stolen).status_code == 200
    assert site.browser().client.get(own).status_code == 403, "without the cookie"
    client = site.browser().client
    way_back = go(client)
    assert client.get(way_back).status_code == 200
    assert client.get(way_back).status_code == 403, "used once"


def test_a_sign_in_does_not_wait_for_ever(site: Site) -> None:
    client = site.browser().client
    way_back = go(client)
    site.wait(seconds=LIFE.total_seconds())
    assert client.get(way_back).status_code == 403


def test_an_answer_in_another_providers_name_is_refused(site: Site, provider: IdentityProvider) -> None:
    provider.lies = Lies(says_iss="https://other.example")
    assert not comes_in(site)


def test_a_changed_state_is_refused(site: Site) -> None:
    client = site.browser().client
    way_back = urlsplit(go(client))
    query = dict(parse_qsl(way_back.query)) | {"state": "0" * 64}
    assert client.get(way_back.path, params=query).status_code == 403


def test_a_provider_that_calls_itself_otherwise_or_is_away_is_a_fault(
    provider: IdentityProvider, tmp_path: Path
) -> None:
    open_one = open_provider(settings_for(provider, tmp_path), system_clock)
    assert open_one is not None
    provider.lies = Lies(issuer="https://other.example")
    with pytest.raises(ProviderFault, match="another name"):
        open_one.begin(lambda count: b"\1" * count)
    away = Settings(home=tmp_path, oidc_issuer="http://127.0.0.1:9", oidc_client_id="x")
    gone = open_provider(away, system_clock)
    assert gone is not None
    with pytest.raises(ProviderFault, match="cannot be reached"):
        gone.begin(lambda count: b"\1" * count)


def test_who_runs_it_learns_that_the_secret_is_wrong_or_the_clock(
    provider: IdentityProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = settings_for(provider, tmp_path).model_copy(update={"oidc_client_secret": SecretStr("yesterday's")})
    with opened(wrong) as site:
        assert not comes_in(site)
        assert "BGBATCH_OIDC_CLIENT_SECRET" in caplog.text
    with opened(settings_for(provider, tmp_path)) as site:
        provider.now = lambda: (site.now + timedelta(minutes=10)).timestamp()
        assert not comes_in(site)
        assert "InvalidClaimError iat" in caplog.text


def test_who_waits_for_a_provider_that_hangs_keeps_nobody_else_waiting(
    site: Site, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starlette has 40 threads for all pages; that many who were signing in held up each other page and `/healthz`."""
    monkeypatch.setattr(oidc, "_SECONDS", 600)
    provider.answers.clear()
    with serving(site.app) as address, ThreadPoolExecutor(45) as people:

        def sign_in(_: int) -> int:
            return requests.get(f"{address}/sign-in/provider/go", allow_redirects=False, timeout=600).status_code

        try:
            waiting = [people.submit(sign_in, each) for each in range(45)]
            for _ in range(30):
                assert requests.get(f"{address}/healthz", timeout=60).ok
            assert not [each for each in waiting if each.done()]
        finally:
            provider.answers.set()
        assert {each.result() for each in waiting} == {303}


def test_a_provider_on_the_open_network_must_use_tls(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="https"):
        open_provider(Settings(home=tmp_path, oidc_issuer="http://id.example", oidc_client_id="x"), system_clock)
    with pytest.raises(UserError, match="CLIENT_ID"):
        open_provider(Settings(home=tmp_path, oidc_issuer="https://id.example"), system_clock)
    assert open_provider(Settings(home=tmp_path), system_clock) is None


def test_without_a_provider_there_is_no_way_to_one(tmp_path: Path) -> None:
    with opened(at_home(tmp_path)) as site:
        assert site.browser().client.get("/sign-in/provider/go").status_code == 404


def test_a_clock_a_little_off_is_no_reason_to_refuse(site: Site, provider: IdentityProvider) -> None:
    ahead = timedelta(seconds=30)
    provider.now = lambda: (site.now + ahead).timestamp()
    assert comes_in(site)
