"""A stand-in of an OAuth 2 server: tokens by the client-credentials grant, signed, and the keys to check them with."""

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

NAME, AUDIENCE, KEY_ID, SECRET = "https://login.example", "kafka", "k1", "of the client"


@dataclass
class Endpoint:
    """`given`: of each token whose it is, when it was given, and when it ends."""

    url: str = ""
    given: list[tuple[str, float, float]] = field(default_factory=list)


class Issuer:
    """`keys`: a file with its public keys (RFC 7517)."""

    def __init__(self, folder: Path) -> None:
        self._key, self._foreign = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self.keys = folder / "jwks.json"
        self.keys.write_text(json.dumps({"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "RS256"}]}))

    def token(self, subject: str, *, lifetime_s: float, foreign_key: bool = False, **claims: Any) -> str:
        """Signed; `foreign_key`: by somebody else, who says that the key is this one."""
        now = time.time()
        said = {"iss": NAME, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + lifetime_s, **claims}
        key = self._foreign if foreign_key else self._key
        return jwt.encode(said, key, algorithm="RS256", headers={"kid": KEY_ID})

    @asynccontextmanager
    async def endpoint(self, *, lifetime_s: float = 300, **of_the_token: Any) -> AsyncIterator[Endpoint]:
        """Gives tokens to clients with the right secret, each of which is then the token's subject."""
        there = Endpoint()

        async def give(request: web.Request) -> web.Response:
            form: Mapping[str, Any] = await request.post()
            client_id, _, secret = base64.b64decode(request.headers["authorization"][6:]).decode().partition(":")
            if secret != SECRET or form.get("grant_type") != "client_credentials":
                return web.json_response({"error": "invalid_client"}, status=401)
            scope = {"scope": form["scope"]} if "scope" in form else {}
            token = self.token(client_id, lifetime_s=lifetime_s, **scope, **of_the_token)
            there.given.append((client_id, time.time(), time.time() + lifetime_s))
            return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": lifetime_s})

        app = web.Application()
        app.router.add_post("/token", give)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        there.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
        try:
            yield there
        finally:
            await runner.cleanup()
