"""OpenID Connect: who somebody is, by the word of the identity provider that the settings name.

The authorization code flow with PKCE (RFC 7636). An answer is believed when it fits what was asked (`state`, `nonce`,
code verifier), comes from that provider (`iss`, RFC 9207), and its ID token is signed by a key that the provider
publishes, for us (`aud`), now (`exp`), with an asymmetric algorithm. The address that a provider keeps out of its ID
tokens (OpenID Connect Core, 5.4) is asked for with the access token, and believed for the same `sub`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlsplit

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from schemas.clock import Clock
from schemas.errors import NotAllowed, ProviderFault, UserError
from schemas.ids import Randomness
from store.records.provider_sign_ins import UnderWay
from store.settings import THIS_MACHINE, Settings

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
_SECONDS = 10
"""How long the provider may take to answer."""

_LEEWAY = 60
"""Seconds by which the provider's clock may differ from ours."""


@dataclass(frozen=True)
class Identity:
    """Somebody, by the provider's word: what its ID token says of them, and what lets us ask for more."""

    issuer: str
    subject: str
    claims: Mapping[str, object] = field(repr=False)
    access_token: str = field(repr=False)


@dataclass(frozen=True)
class Provider:
    """The provider, and what it knows us as. `returns_to`: our page that people come back to."""

    name: str
    issuer: str
    client_id: str
    client_secret: str
    returns_to: str
    clock: Clock

    def begin(self, randomness: Randomness) -> tuple[str, UnderWay]:
        """Where to send the browser, and what to hold its answer against. Raises `ProviderFault`."""
        asked = UnderWay(state=randomness(32).hex(), nonce=randomness(32).hex(), code_verifier=randomness(48).hex())
        address, _ = self._session().create_authorization_url(
            _text(self._discover(), "authorization_endpoint"),
            state=asked.state,
            nonce=asked.nonce,
            code_verifier=asked.code_verifier,
        )
        return address, asked

    def finish(self, asked: UnderWay, answer: Mapping[str, str]) -> Identity:
        """Who came back. Raises `NotAllowed` for an answer that does not fit, `ProviderFault`."""
        if not hmac.compare_digest(asked.state.encode(), answer.get("state", "").encode()):
            raise NotAllowed("This sign-in does not fit what was asked for. Start again from the sign-in page.")
        if answer.get("iss", self.issuer) != self.issuer:
            raise NotAllowed("This sign-in came from another provider. Start again from the sign-in page.")
        if "error" in answer or not answer.get("code"):
            raise NotAllowed("The provider did not sign you in. You can try again, or use a link by e-mail.")
        known = self._discover()
        try:
            tokens = self._session().fetch_token(
                _text(known, "token_endpoint"),
                code=answer["code"],
                code_verifier=asked.code_verifier,
                auth=self._proof(),
                timeout=_SECONDS,
            )
            keys = _readable(self._get(_text(known, "jwks_uri")))
            token = jwt.decode(str(tokens.get("id_token", "")), keys, algorithms=_ALGORITHMS)
            self._check(token.claims, asked)
            return Identity(self.issuer, str(token.claims["sub"]), token.claims, str(tokens.get("access_token", "")))
        except (AuthlibBaseError, JoseError, ValueError, requests.RequestException) as error:
            if getattr(error, "error", "") == "invalid_client":
                raise ProviderFault(
                    "The identity provider does not take our client id and secret. Nobody was signed in. Check "
                    "BGBATCH_OIDC_CLIENT_ID and BGBATCH_OIDC_CLIENT_SECRET."
                ) from None
            what = f"{type(error).__name__} {getattr(error, 'claim', '')}".strip()
            raise ProviderFault(
                f"The identity provider's answer cannot be believed: {what}. Nobody was signed in."
            ) from None

    def address_of(self, identity: Identity) -> str | None:
        """Their e-mail address, if the provider has verified it. Raises `ProviderFault`."""
        told = identity.claims
        if "email" not in told and "userinfo_endpoint" in (known := self._discover()):
            bearer = {"Authorization": f"Bearer {identity.access_token}"}
            told = self._get(_text(known, "userinfo_endpoint"), bearer)
            if told.get("sub") != identity.subject:
                raise ProviderFault("The identity provider tells of somebody else than who came. Nobody was signed in.")
        email = told.get("email") if told.get("email_verified") is True else None
        return str(email) if email else None

    def _check(self, claims: Mapping[str, object], asked: UnderWay) -> None:
        registry = jwt.JWTClaimsRegistry(
            now=lambda: int(self.clock().timestamp()),
            leeway=_LEEWAY,
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": self.client_id},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": asked.nonce},
        )
        registry.validate(dict(claims))
        if claims.get("azp", self.client_id) != self.client_id:
            raise ValueError("issued to another client")

    def _proof(self) -> tuple[str, str] | None:
        """Who we are, quoted as RFC 6749, 2.3.1 has it: providers read `+` as a blank. None without a secret."""
        if not self.client_secret:
            return None
        return quote_plus(self.client_id), quote_plus(self.client_secret)

    def _session(self) -> OAuth2Session:
        return OAuth2Session(
            self.client_id,
            self.client_secret,
            scope="openid email",
            redirect_uri=self.returns_to,
            code_challenge_method="S256",
        )

    def _discover(self) -> dict[str, object]:
        known = self._get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if known.get("issuer") != self.issuer:
            raise ProviderFault("The identity provider calls itself by another name. Check BGBATCH_OIDC_ISSUER.")
        return known

    def _get(self, address: str, headers: Mapping[str, str] | None = None) -> dict[str, object]:
        try:
            answer = requests.get(address, headers=headers, timeout=_SECONDS)
            answer.raise_for_status()
            found = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise ProviderFault(f"The identity provider cannot be reached: {type(error).__name__}.") from None
        if not isinstance(found, dict):
            raise ProviderFault("The identity provider's answer cannot be read.")
        return found


def open_provider(settings: Settings, clock: Clock) -> Provider | None:
    """The provider that the settings name, or none. Raises `UserError` for one that cannot be used."""
    if not settings.oidc_issuer:
        return None
    if not settings.oidc_client_id:
        raise UserError("BGBATCH_OIDC_ISSUER needs BGBATCH_OIDC_CLIENT_ID beside it.")
    _must_be_private(settings.oidc_issuer)
    return Provider(
        name=settings.oidc_name,
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret.get_secret_value(),
        returns_to=f"{settings.portal_url}/sign-in/provider/back",
        clock=clock,
    )


def _must_be_private(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in THIS_MACHINE:
        raise UserError("BGBATCH_OIDC_ISSUER must begin with https://: else anybody on the way could answer for it.")


def _readable(published: Mapping[str, object]) -> KeySet:
    """The provider's keys, without those of kinds that are not known here (RFC 7517, 5): it may sign with another."""
    keys = []
    found = published.get("keys")
    for each in found if isinstance(found, list) else []:
        with suppress(JoseError, ValueError, TypeError, KeyError):  # the last for a curve that is not known
            keys += KeySet.import_key_set({"keys": [each]}).keys
    return KeySet(keys)


def _text(known: Mapping[str, object], name: str) -> str:
    value = known.get(name)
    if not isinstance(value, str):
        raise ProviderFault("The identity provider's description of itself is incomplete.")
    return value
