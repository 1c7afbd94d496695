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
from transport.tokens import AUDIENCE, ISSUER, InvalidTokenError, Tokens, _key_id

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
    "kid of nobody": signed(claims(), headers={"kid": "0" * 16}),
    "kid of the old key with the new one's signature": signed(claims(), headers={"kid": _key_id(OTHER)}),
    "another key with our kid": signed(claims(), OTHER, headers={"kid": _key_id(SECRET)}),
    "empty key with a path as kid": signed(claims(), "", headers={"kid": "../../../../dev/null"}),
    "kid as a statement": signed(claims(), "x", headers={"kid": "' UNION SELECT 'x' --"}),
    "kid is null": signed(claims(), headers={"kid": None}),
    "kid is a list": signed(claims(), headers={"kid": [_key_id(SECRET)]}),
    "kid is an object": signed(claims(), headers={"kid": {"a": 1}}),
    "x5c": signed(claims(), headers={"x5c": ["MIIB"]}),
    "b64": signed(claims(), headers={"b64": False}),
    "encrypted": f"{encoded({'alg': 'dir', 'enc': 'A128GCM'})}..{SIGNATURE}.{BODY}.{SIGNATURE}",
    "alg in other letters": signed(claims(), headers={"alg": "hs256"}),
    "alg None": signed(claims(), headers={"alg": "None"}),
    "no alg": signed(claims(), headers={"alg": None}),
    "alg is a list": signed(claims(), headers={"alg": ["HS256"]}),
    "ES256 in the header": signed(claims(), headers={"alg": "ES256"}),
    "the key's PEM as the secret": signed(claims(), "-----BEGIN PUBLIC KEY-----"),
    "another type": signed(claims(), headers={"typ": "at+jwt"}),
    "header is a list": f"{encoded(['HS256'])}.{BODY}.{SIGNATURE}",
    "header is no JSON": f"{encoded(b'{alg')}.{BODY}.{SIGNATURE}",
    "line break inside": f"{HEAD}.{BODY}.{SIGNATURE[:9]}\n{SIGNATURE[9:]}",
    "line break behind": GOOD + "\n",
    "blank in front": " " + GOOD,
    "plus and slash": GOOD.replace("-", "+").replace("_", "/") + "+",
    "claims of another": f"{HEAD}.{encoded(claims(sub='root'))}.{SIGNATURE}",
    "signature of another": f"{HEAD}.{BODY}.{signed(claims(sub='root')).split('.')[2]}",
    "half a signature": f"{HEAD}.{BODY}.{SIGNATURE[:22]}",
    "sub is a number": signed(claims(sub=1)),
    "sub is empty": signed(claims(sub="")),
    "sub is a list": signed(claims(sub=["alice"])),
    "jti is empty": signed(claims(jti="")),
    "epoch is a text": signed(claims(epoch="9")),
    "epoch is true": signed(claims(epoch=True)),
    "epoch is a fraction": signed(claims(epoch=1e9)),
    "exp is a text": signed(claims(exp=str(int(time.time()) + 3600))),
    "exp is true": signed(claims(exp=True)),
    "exp is endless": signed(claims(exp=float("inf"))),
    "exp before iat": signed(claims(exp=int(time.time()) - 10)),
    "not yet": signed(claims(nbf=int(time.time()) + 3000)),
    "nbf is a text": signed(claims(nbf="now")),
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


def test_whatever_a_holder_of_the_key_could_sign_passes_here_only_if_it_passes_in_pyjwt() -> None:
    dice, checker = random.Random(11), tokens()
    odd: list[Any] = [
        None, True, 0, 1, -1, 1e308, 2**63, 2**70, "", "x", "alice", "HS256", "none", [], ["alice"], {}, {"a": 1}, 0.5,
        int(time.time()), int(time.time()) + 600, float("nan"), "\ud800", "\x00",
    ]  # fmt: skip
    names = ["sub", "iss", "aud", "iat", "nbf", "exp", "jti", "epoch", "role", "scope", "cnf"]
    passed = 0
    for _ in range(5000):
        body, headers = claims(sub="bob", epoch=dice.randint(0, 9)), {}
        for _ in range(dice.choice([0, 1, 1, 2])):
            name, value = dice.choice(names), dice.choice(odd)
            body[name] = value
        if dice.random() < 0.3:
            headers[dice.choice(["alg", "typ", "kid", "crit", "jku", "x"])] = dice.choice(odd)
        token = signed(body, headers=headers)
        try:
            found = checker.verify(token)
        except InvalidTokenError:
            continue
        passed += 1
        decoded = pyjwt.decode(token, SECRET, algorithms=["HS256"], audience=AUDIENCE, issuer=ISSUER, leeway=30)
        assert (decoded["sub"], decoded["jti"]) == (found.user_id, body["jti"])
        assert decoded["exp"] == found.expires
    assert passed > 500


def test_a_token_says_which_key_it_was_made_with_and_one_that_does_not_is_tried_with_both() -> None:
    old, new = Tokens([OTHER], lifetime_s=60), Tokens([SECRET, OTHER], lifetime_s=60)
    kid = pyjwt.get_unverified_header(new.issue("alice", role="user", epoch=0))["kid"]
    assert kid != pyjwt.get_unverified_header(old.issue("alice", role="user", epoch=0))["kid"]
    assert kid == pyjwt.get_unverified_header(tokens().issue("alice", role="user", epoch=0))["kid"]
    assert kid not in SECRET
    for secret in (SECRET, OTHER):
        assert new.verify(signed(claims(), secret)).user_id == "alice"


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
