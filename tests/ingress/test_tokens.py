"""Forged tokens get nowhere; what python-jose would let through is stopped before it."""

import base64
import hmac
import json
import random
import time
from typing import Any

import jwt as pyjwt
import pytest

from tests.conftest import SECRET
from transport.tokens import AUDIENCE, ISSUER, InvalidTokenError, Tokens

OTHER = "another-secret-0123456789-abcdefghijklmnopqrstuvwxyz"


def claims(**overrides: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 3600, "jti": "1",
            "epoch": 0}  # fmt: skip
    return {name: value for name, value in (made | overrides).items() if value is not None}


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(
    body: dict[str, Any], secret: str = SECRET, headers: dict[str, Any] | None = None, algorithm: str = "HS256"
) -> str:
    """By hand: libraries refuse to make what a forger would."""
    content = f"{encoded({'alg': algorithm, 'typ': 'JWT'} | (headers or {}))}.{encoded(body)}"
    digest = hmac.digest(secret.encode(), content.encode(), f"sha{algorithm[2:]}")
    return f"{content}.{encoded(digest)}"


def tokens() -> Tokens:
    return Tokens([SECRET], lifetime_s=3600)


def test_an_issued_token_says_who_it_is_and_other_libraries_agree() -> None:
    token = tokens().issue("alice", role="user", epoch=3)
    found = tokens().verify(token)
    assert (found.user_id, found.epoch) == ("alice", 3)
    decoded = pyjwt.decode(token, SECRET, algorithms=["HS256"], audience=AUDIENCE, issuer=ISSUER)
    assert decoded["exp"] - decoded["iat"] == 3600


GOOD = signed(claims())
HEAD, BODY, SIGNATURE = GOOD.split(".")
FORGED = {
    "none": f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{BODY}.",
    "none with signature": f"{encoded({'alg': 'none'})}.{BODY}.{SIGNATURE}",
    "another hash": signed(claims(), algorithm="HS512"),
    "RS256 in the header": f"{encoded({'alg': 'RS256', 'typ': 'JWT'})}.{BODY}.{SIGNATURE}",
    "another key": signed(claims(), OTHER),
    "empty key": signed(claims(), ""),
    "stripped signature": f"{HEAD}.{BODY}.",
    "two parts": f"{HEAD}.{BODY}",
    "five parts": f"{GOOD}.a.b",
    "padded": f"{HEAD}.{BODY}.{SIGNATURE}=",
    "not canonical": GOOD[:-1] + ("B" if GOOD[-1] == "A" else chr(ord(GOOD[-1]) + 1)),
    "jku": signed(claims(), headers={"jku": "https://evil.example"}),
    "jwk": signed(claims(), headers={"jwk": {"kty": "oct"}}),
    "x5u": signed(claims(), headers={"x5u": "https://evil.example"}),
    "crit": signed(claims(), headers={"crit": ["exp"]}),
    "no exp": signed(claims(exp=None)),
    "no iat": signed(claims(iat=None)),
    "no aud": signed(claims(aud=None)),
    "no iss": signed(claims(iss=None)),
    "no sub": signed(claims(sub=None)),
    "no jti": signed(claims(jti=None)),
    "expired": signed(claims(iat=1, nbf=1, exp=600)),
    "too long a life": signed(claims(exp=int(time.time()) + 90_000)),
    # Far enough ahead: these are made when tests are collected, minutes before their turn.
    "from the future": signed(claims(iat=int(time.time()) + 3000, nbf=None, exp=int(time.time()) + 3300)),
    "another audience": signed(claims(aud="others")),
    "several audiences": signed(claims(aud=[AUDIENCE, "others"])),
    "another issuer": signed(claims(iss="others")),
    "huge": signed(claims(extra="x" * 5000)),
    "claims are a list": f"{HEAD}.{encoded([1])}.{SIGNATURE}",
    "nothing": "",
    "dots": "..",
    "not ASCII": "é.é.é",
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused(name: str) -> None:
    with pytest.raises(InvalidTokenError):
        tokens().verify(FORGED[name])


def test_the_unforged_one_passes() -> None:
    assert tokens().verify(GOOD).user_id == "alice"


def test_whatever_passes_here_passes_in_pyjwt_too() -> None:
    dice = random.Random(3)
    checker = tokens()
    passed = 0
    for _ in range(5000):
        text = list(GOOD if dice.random() < 0.5 else signed(claims(sub="bob", epoch=dice.randint(0, 9))))
        for _ in range(dice.choice([0, 1, 1, 2])):
            place = dice.randrange(len(text))
            text[place] = dice.choice("ABCabc012-_=. ")
        token = "".join(text)
        try:
            found = checker.verify(token)
        except InvalidTokenError:
            continue
        passed += 1
        assert pyjwt.decode(token, SECRET, algorithms=["HS256"], audience=AUDIENCE)["sub"] == found.user_id
    assert passed > 100


def test_an_old_key_is_honoured_during_a_rotation_and_not_after() -> None:
    old = Tokens([OTHER], lifetime_s=60).issue("alice", role="user", epoch=0)
    assert Tokens([SECRET, OTHER], lifetime_s=60).verify(old).user_id == "alice"
    with pytest.raises(InvalidTokenError):
        tokens().verify(old)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        Tokens(["short"], lifetime_s=60)


def test_a_token_that_was_seen_before_expires_all_the_same() -> None:
    at = time.time()
    tokens = Tokens([SECRET], lifetime_s=60, now=lambda: at)
    token = tokens.issue("alice", role="user", epoch=0)
    assert tokens.verify(token) == tokens.verify(token)
    at += 60 + 31
    with pytest.raises(InvalidTokenError):
        tokens.verify(token)


def test_only_so_many_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transport.tokens.MAX_VERIFIED", 3)
    tokens = Tokens([SECRET], lifetime_s=60)
    for n in range(10):
        tokens.verify(tokens.issue(f"user-{n}", role="user", epoch=0))
    assert len(tokens._verified) == 3
