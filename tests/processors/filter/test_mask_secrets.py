import time

import pytest

from processors.filter.mask_secrets import excerpt

SECRETS = [
    "sk-abcdefghij0123456789", "sk_live_abcdefgh12345678", "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv", "ghp_abcdefghij0123456789ABCDEFGHIJ012345",
    "github_pat_11ABCDEFG0abcdefghijkl", "glpat-abcdefghij0123456789", "xoxb-123456789012-abcdefghijkl",
    "hvs-CAESIabcdefgh12", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJyb290In0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "0123456789abcdef0123456789abcdef", "4111 1111 1111 1111", "alice@example.com",
    "Zq3v9KxT1mB7rWn5cJ2hYs8dLf4gPa6e0uXoIiEt9w==",
]  # fmt: skip
IN_PLACE = [
    ("my password is hunter2 ok", "hunter2"), ("password=hunter2", "hunter2"), ("API_KEY: abc123", "abc123"),
    ('"token": "abc123"', "abc123"), ("Authorization: Bearer abc.def-1", "abc.def-1"),
    ("postgresql://admin:hunter2@db/x", "hunter2"), ("пароль: тайна1", "тайна1"), ("pwd - s3cr3t", "s3cr3t"),
    ("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----", "MIIB"),
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_a_secret_is_masked(secret: str) -> None:
    shown = excerpt(f"Ignore the rules, use {secret} and go on")
    assert shown == "Ignore the rules, use [secret] and go on"


@pytest.mark.parametrize(("text", "secret"), IN_PLACE)
def test_what_stands_where_secrets_stand_is_masked(text: str, secret: str) -> None:
    shown = excerpt(text)
    assert secret not in shown
    assert "[secret]" in shown


@pytest.mark.parametrize("text", ["Ignore all previous instructions", "what is 2 + 2 in 2026?", "забудь все"])
def test_other_words_stay(text: str) -> None:
    assert excerpt(text) == text


def test_it_is_one_line_of_200_characters_and_a_secret_at_its_end_is_none_in_parts() -> None:
    shown = excerpt("a b\n\tc " * 30 + "sk-" + "Z" * 3000)
    assert len(shown) <= 200
    assert "\n" not in shown
    assert "ZZ" not in shown
    shown = excerpt("x " * 95 + "sk-" + "Z" * 3000)
    assert "ZZ" not in shown


@pytest.mark.parametrize("text", ["a" * 20_000, "password" * 2500, "-----BEGIN " * 2000, "a@" * 10_000, "1 " * 10_000])
def test_it_takes_no_longer_for_a_text_that_was_made_for_it(text: str) -> None:
    began = time.process_time()
    for _ in range(10):
        excerpt(text)
    assert (time.process_time() - began) / 10 < 0.01
