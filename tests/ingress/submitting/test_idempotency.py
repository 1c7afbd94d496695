import pytest

from ingress.submitting.idempotency import fingerprint


def test_bodies_that_say_the_same_have_one_fingerprint() -> None:
    one = fingerprint("POST", "/chat/", b'{"prompt": "a", "generation_config": {"top_p": 1, "temperature": 0}}')
    assert one == fingerprint("POST", "/chat/", b'{"generation_config":{"temperature":0,"top_p":1},"prompt":"\\u0061"}')


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/chat/", b'{"prompt":"b"}'), ("POST", "/chat/async", b'{"prompt":"a"}'),
        ("PUT", "/chat/", b'{"prompt":"a"}'), ("POST", "/chat/", b'{"prompt":NaN}'),
        ("POST", "/chat/", b'{"prompt":"\\ud800"}'), ("POST", "/chat/", b"[" * 5000 + b"]" * 5000),
    ],
)  # fmt: skip
def test_another_request_has_another(method: str, path: str, body: bytes) -> None:
    assert fingerprint(method, path, body) != fingerprint("POST", "/chat/", b'{"prompt":"a"}')
    assert fingerprint(method, path, body) == fingerprint(method, path, body)
