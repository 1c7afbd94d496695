import pytest

from schemas.caller import ADDRESS_HEADER, address_headers, address_in, as_address


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::1", "::ffff:203.0.113.7"])
def test_an_address_comes_back(address: str) -> None:
    assert as_address(address_in([("ce_id", b"x"), *address_headers(address)])) is not None
    assert address_headers(None) == []
    assert address_in([]) is None


@pytest.mark.parametrize("told", [b"", b"testclient", b"\xff", b"1" * 500, b"<script>", b"203.0.113.7; x"])
def test_what_is_no_address_is_none(told: bytes) -> None:
    assert as_address(address_in([(ADDRESS_HEADER, told)])) is None
