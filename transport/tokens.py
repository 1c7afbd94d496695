"""JSON Web Tokens: the only module that knows python-jose.

python-jose 3.5.0 accepts an empty key, tokens without `aud` or `exp`, unknown `crit`, and keys of another kind; so
what it is given is checked first. Guide: RFC 8725.
"""

import base64
import binascii
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson
from jose import JWTError, jwk, jwt

ALGORITHM, ISSUER, AUDIENCE = "HS256", "assistant-stream", "assistant-stream"
MAX_TOKEN_CHARS = 4096
LEEWAY_S = 30
MAX_LIFETIME_S = 24 * 3600
MAX_VERIFIED = 10_000
HEADER_KEYS = {"alg", "typ", "kid"}
REQUIRED = ("exp", "iat", "aud", "iss", "sub", "jti")
# What python-jose requires it also verifies, so `_checked` looks after both.
AT_ANY_TIME = dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "require_exp", "require_iat"), False)
_BASE64URL = re.compile(r"^[A-Za-z0-9_-]+$")


class InvalidTokenError(Exception):
    """It is no token of ours, or no longer."""


class ExpiredTokenError(InvalidTokenError):
    """It is one of ours, for another time. `user_id`: whose."""

    def __init__(self, user_id: str) -> None:
        super().__init__("a token for another time")
        self.user_id = user_id


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says.

    `epoch`: of its user when it was made, a higher one since has revoked it; `expires`: seconds since 1970.
    """

    user_id: str
    epoch: int
    jti: str
    expires: int


class Tokens:
    """Issues and verifies."""

    def __init__(self, secrets: Sequence[str], *, lifetime_s: int, now: Callable[[], float] = time.time) -> None:
        """`secrets`: the current one first, then those honoured during a rotation; each at least 32 bytes."""
        if not secrets or any(len(secret.encode()) < 32 for secret in secrets):
            raise ValueError("a JWT secret is at least 32 random bytes")
        # A key that is built once is used as it is: its hash cannot be switched, nor is it parsed as a key set.
        self._keys = {_key_id(secret): jwk.construct(secret.encode(), ALGORITHM) for secret in secrets}
        self._current = _key_id(secrets[0])
        self._lifetime_s, self._now = lifetime_s, now
        # A signature costs a sixteenth of a request, and stays right: only the time must be looked at again.
        self._verified: OrderedDict[str, Claims] = OrderedDict()
        self._signed: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def issue(self, user_id: str, *, role: str, epoch: int) -> str:
        """A token for a user who has proven who they are. `role` is for clients to look at; nobody trusts it."""
        now = int(self._now())
        claims = {
            "sub": user_id, "role": role, "epoch": epoch, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "nbf": now,
            "exp": now + self._lifetime_s, "jti": uuid4().hex,
        }  # fmt: skip
        key, headers = self._keys[self._current], {"kid": self._current}
        token: str = jwt.encode(claims, key, algorithm=ALGORITHM, headers=headers)
        return token

    def verify(self, token: str) -> Claims:
        """What it says.

        Raises:
            InvalidTokenError: It is not ours, has expired, or lacks a claim.
        """
        known = self._verified.get(token)
        if known is not None and self._now() < known.expires + LEEWAY_S:
            return known
        claims = self._verify(token)
        self._verified[token] = claims
        if len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)
        return claims

    def verify_at(self, token: str, at: float) -> Claims:
        """What it said at a time, in seconds since 1970: the same at each look, however late.

        Raises:
            ExpiredTokenError: It was not good then, and is right otherwise.
            InvalidTokenError: It is not ours, or lacks a claim.
        """
        claims = self._signed.get(token)
        if claims is None:
            claims = self._decoded(token, **AT_ANY_TIME)
            _checked(claims, _issued(claims))
            self._signed[token] = claims
            if len(self._signed) > MAX_VERIFIED:
                self._signed.popitem(last=False)
        not_before = claims.get("nbf", claims["iat"])
        try:
            if type(not_before) is int and not_before - LEEWAY_S <= at:
                return _checked(claims, at)
        except InvalidTokenError:
            pass
        raise ExpiredTokenError(claims["sub"])

    def _verify(self, token: str) -> Claims:
        return _checked(self._decoded(token), self._now())

    def _decoded(self, token: str, **options: bool) -> dict[str, Any]:
        header = _checked_header(token)
        for key in self._fitting(header):
            try:
                claims: dict[str, Any] = jwt.decode(
                    token, key, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER,
                    options={"leeway": LEEWAY_S, **{f"require_{name}": True for name in REQUIRED}, **options},
                )  # fmt: skip
            except (JWTError, ValueError, TypeError):
                continue
            return claims
        raise InvalidTokenError

    def _fitting(self, header: dict[str, Any]) -> list[Any]:
        """The key that the token names; all of ours where it names none. A name is looked up here and nowhere else."""
        if "kid" not in header:
            return list(self._keys.values())
        key = self._keys.get(header["kid"]) if isinstance(header["kid"], str) else None
        return [] if key is None else [key]


def _key_id(secret: str) -> str:
    """Tells a key from others, and nothing of it."""
    return hmac.digest(secret.encode(), b"assistant-stream key id", "sha256").hex()[:16]


def _checked_header(token: str) -> dict[str, Any]:
    parts = token.split(".")
    if len(token) > MAX_TOKEN_CHARS or len(parts) != 3:
        raise InvalidTokenError
    decoded = [_canonical(part) for part in parts]
    try:
        header, claims = orjson.loads(decoded[0]), orjson.loads(decoded[1])
    except orjson.JSONDecodeError:
        raise InvalidTokenError from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise InvalidTokenError
    if not header.keys() <= HEADER_KEYS or header.get("alg") != ALGORITHM or header.get("typ", "JWT") != "JWT":
        raise InvalidTokenError
    return header


def _canonical(part: str) -> bytes:
    """Base64url without padding, in its one spelling: others would defeat a comparison."""
    if not _BASE64URL.match(part):
        raise InvalidTokenError
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (ValueError, binascii.Error):
        raise InvalidTokenError from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise InvalidTokenError
    return raw


def _issued(claims: dict[str, Any]) -> int:
    issued = claims.get("iat")
    if type(issued) is not int:
        raise InvalidTokenError
    return issued


def _checked(claims: dict[str, Any], now: float) -> Claims:
    if any(name not in claims for name in REQUIRED):
        raise InvalidTokenError
    subject, jti, epoch = claims["sub"], claims["jti"], claims.get("epoch", 0)
    issued, expires = claims["iat"], claims["exp"]
    if not (isinstance(subject, str) and subject and isinstance(jti, str) and jti and type(epoch) is int):
        raise InvalidTokenError
    if type(issued) is not int or type(expires) is not int or not 0 < expires - issued <= MAX_LIFETIME_S:
        raise InvalidTokenError
    if claims["aud"] != AUDIENCE or not issued - LEEWAY_S <= now < expires + LEEWAY_S:
        raise InvalidTokenError
    return Claims(subject, epoch, jti, expires)
