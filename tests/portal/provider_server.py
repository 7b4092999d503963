"""A real, small OpenID Connect provider on this machine: discovery, authorization, tokens, keys, over HTTP.

It checks what a provider must check (client, secret, redirect address, PKCE, a code used once). `lies` changes what it
says, so that the tests can see who believes it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

ACCESS = "an-access-token"
CLIENT, SECRET = "bgbatch:tests", "a-secret+of / tests"
Claims = dict[str, object]


@dataclass
class Lies:
    """What this provider does wrong. Each is harmless to one who checks."""

    claims: Callable[[Claims], Claims] = lambda claims: claims
    signs_with: str = "its key"
    says_iss: str | None = None
    issuer: str | None = None


@dataclass
class IdentityProvider:
    """Who is signed in there (`claims` of the person), and what it has handed out."""

    issuer: str = ""
    person: Claims = field(default_factory=dict)
    lies: Lies = field(default_factory=Lies)
    tells_apart: bool = False
    """Whether the address stands in no ID token, but is told for the access token (OpenID Connect Core, 5.4)."""
    tells_of: Claims = field(default_factory=dict)
    answers: threading.Event = field(default_factory=threading.Event)
    """Clear while it hangs."""
    now: Callable[[], float] = time.time
    asked: list[dict[str, str]] = field(default_factory=list)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1", "use": "sig"}))
    more_keys: list[object] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def description(self) -> Claims:
        return {
            "issuer": self.lies.issuer or self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "code_challenge_methods_supported": ["S256"],
            "userinfo_endpoint": f"{self.issuer}/userinfo",
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser goes next. The person is signed in there and agrees."""
        self.asked.append(query)
        assert (query["client_id"], query["response_type"]) == (CLIENT, "code")
        assert "openid" in query["scope"].split()
        if not self.person:
            return f"{query['redirect_uri']}?{urlencode({'error': 'access_denied', 'state': query['state']})}"
        code = secrets.token_hex(8)
        self.codes[code] = query
        answer = {"code": code, "state": query["state"], "iss": self.lies.says_iss or self.issuer}
        return f"{query['redirect_uri']}?{urlencode(answer)}"

    def token(self, form: dict[str, str], authorization: str) -> Claims | None:
        """The tokens for a code, once, for who can prove to have asked for it."""
        asked = self.codes.pop(form.get("code", ""), None)
        proof = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        told = tuple(unquote_plus(each) for each in proof.split(":"))  # RFC 6749, 2.3.1
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if told != (CLIENT, SECRET):
            return {"error": "invalid_client"}
        if asked is None or challenge != asked["code_challenge"]:
            return None
        if form["redirect_uri"] != asked["redirect_uri"]:
            return None
        now = int(self.now())
        claims: Claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        own = {"sub": self.person["sub"]} if self.tells_apart else self.person
        id_token = self._sign(self.lies.claims(claims | own))
        return {"access_token": ACCESS, "token_type": "Bearer", "id_token": id_token}

    def userinfo(self, authorization: str) -> Claims | None:
        """Whom the access token is about; `tells_of` is somebody else."""
        return self.person | self.tells_of if self.tells_apart and authorization == f"Bearer {ACCESS}" else None

    def _sign(self, claims: Claims) -> str:
        match self.lies.signs_with:
            case "another key":
                return jwt.encode({"alg": "RS256", "kid": "1"}, claims, RSAKey.generate_key(2048))
            case "the client's secret":
                return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET * 3))
            case "its public key, as if it were a secret":
                return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(self.key.as_pem(private=False)))
            case "nothing":
                parts = [{"alg": "none"}, claims]
                encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
                return b".".join([*encoded, b""]).decode()
        return jwt.encode({"alg": "RS256", "kid": "1"}, claims, self.key)


@contextmanager
def identity_provider() -> Iterator[IdentityProvider]:
    """The provider, serving until the block ends."""
    provider = IdentityProvider()
    provider.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.answers.wait()
            parts = urlsplit(self.path)
            if parts.path == "/.well-known/openid-configuration":
                self.answer(provider.description())
            elif parts.path == "/keys":
                self.answer({"keys": [*provider.more_keys, provider.key.as_dict(private=False)]})
            elif parts.path == "/userinfo":
                told = provider.userinfo(self.headers.get("Authorization", ""))
                self.answer(told or {"error": "invalid_token"}, 200 if told else 401)
            elif parts.path == "/authorize":
                self.send_response(302)
                self.send_header("Location", provider.authorize(flat(parts.query)))
                self.end_headers()
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            tokens = provider.token(flat(body), self.headers.get("Authorization", ""))
            self.answer(tokens or {"error": "invalid_grant"}, 200 if tokens and "id_token" in tokens else 400)

        def answer(self, value: object, status: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=60)


def flat(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}
