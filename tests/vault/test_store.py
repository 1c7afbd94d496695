"""hvac's own client against the stand-in: logins, renewals, and what is said where Vault gives nothing."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stand_ins.vault_api import JWT, LEASE_S, ROLE, ROLE_ID, SECRET_ID, VaultStandIn
from vault.access import VaultAccess
from vault.errors import VaultAwayError, VaultStoreError
from vault.store import VaultStore


@pytest.fixture
def vault() -> Iterator[VaultStandIn]:
    with VaultStandIn() as vault:
        vault.put(OPENAI_API_KEY="key-1")
        yield vault


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def ways(vault: VaultStandIn, tmp_path: Path) -> dict[str, VaultAccess]:
    jwt = tmp_path / "token"
    jwt.write_text(JWT + "\n")
    bare = VaultAccess(vault.url)
    return {
        "token": dataclasses.replace(bare, token=vault.root),
        "approle": dataclasses.replace(bare, role_id=ROLE_ID, secret_id=SECRET_ID),
        "kubernetes": dataclasses.replace(bare, kubernetes_role=ROLE, kubernetes_token_path=jwt),
    }


@pytest.mark.parametrize("way", ["token", "approle", "kubernetes"])
def test_each_way_to_log_in_reads_the_newest_version_with_one_login(
    vault: VaultStandIn, tmp_path: Path, way: str
) -> None:
    store = VaultStore(ways(vault, tmp_path)[way])
    assert store.read() == {"OPENAI_API_KEY": "key-1"}
    vault.put(OPENAI_API_KEY="key-2")
    assert store.read() == {"OPENAI_API_KEY": "key-2"}
    assert len([call for call in vault.calls if "auth/" in call]) == 1


def test_a_token_is_renewed_before_it_ends(vault: VaultStandIn, tmp_path: Path) -> None:
    clock = Clock()
    store = VaultStore(ways(vault, tmp_path)["approle"], now=clock)
    store.read()
    assert store.renew_in_s == LEASE_S / 2
    clock.now += LEASE_S / 2 - 1
    store.read()
    assert "POST auth/token/renew-self" not in vault.calls
    clock.now += 1
    store.read()
    assert vault.calls.count("POST auth/token/renew-self") == 1
    assert vault.calls.count("POST auth/approle/login") == 1
    assert store.renew_in_s == LEASE_S / 2


def test_one_that_cannot_be_renewed_any_longer_is_replaced_by_another_login(
    vault: VaultStandIn, tmp_path: Path
) -> None:
    clock = Clock()
    store = VaultStore(ways(vault, tmp_path)["approle"], now=clock)
    store.read()
    vault.can_renew = False
    clock.now += LEASE_S
    assert store.read() == {"OPENAI_API_KEY": "key-1"}
    assert vault.calls.count("POST auth/approle/login") == 2


def test_a_token_that_ends_early_is_replaced_where_that_can_be_done(vault: VaultStandIn, tmp_path: Path) -> None:
    by_role, by_token = (VaultStore(ways(vault, tmp_path)[way]) for way in ("approle", "token"))
    by_role.read()
    by_token.read()
    vault.end_tokens()
    assert by_role.read() == {"OPENAI_API_KEY": "key-1"}
    with pytest.raises(VaultStoreError, match="VAULT_TOKEN must be good"):
        by_token.read()


def test_a_namespace_and_another_place_are_kept_to() -> None:
    with VaultStandIn(namespace="team/a", mount="kv", path="here") as vault:
        vault.put(A="1")
        access = VaultAccess(vault.url, token=vault.root, namespace="team/a", mount="kv", path="here")
        assert VaultStore(access).read() == {"A": "1"}
        with pytest.raises(VaultStoreError, match="VAULT_NAMESPACE"):
            VaultStore(dataclasses.replace(access, namespace=None)).read()
        with pytest.raises(VaultStoreError, match="has no KV v2 secret kv/there"):
            VaultStore(dataclasses.replace(access, path="there")).read()


def test_a_wrong_login_a_seal_and_an_outage_are_told_apart(vault: VaultStandIn, tmp_path: Path) -> None:
    for wrong, told in (
        (VaultAccess(vault.url, token="hvs.not-this-one"), "VAULT_TOKEN"),
        (VaultAccess(vault.url, role_id=ROLE_ID, secret_id="not-this-one"), "VAULT_SECRET_ID"),
        (VaultAccess(vault.url, kubernetes_role="another", kubernetes_token_path=tmp_path / "token"),
         "VAULT_KUBERNETES_ROLE"),
    ):  # fmt: skip
        (tmp_path / "token").write_text(JWT)
        with pytest.raises(VaultStoreError, match=told) as refused:
            VaultStore(wrong).read()
        assert not isinstance(refused.value, VaultAwayError)
        assert "not-this-one" not in str(refused.value)
    store = VaultStore(ways(vault, tmp_path)["token"])
    vault.sealed = True
    with pytest.raises(VaultAwayError, match="sealed"):
        store.read()
    with pytest.raises(VaultAwayError, match="does not answer"):
        VaultStore(VaultAccess("http://127.0.0.1:1", token="t")).read()
    with pytest.raises(VaultStoreError, match="VAULT_KUBERNETES_TOKEN_PATH"):
        VaultStore(VaultAccess(vault.url, kubernetes_role=ROLE, kubernetes_token_path=tmp_path / "none")).read()


@pytest.mark.parametrize(
    ("access", "named"),
    [
        (VaultAccess("https://v"), "none of VAULT_TOKEN"),
        (VaultAccess("https://v", token="t", role_id="r", secret_id="s"), "VAULT_TOKEN and VAULT_ROLE_ID are set"),
        (VaultAccess("https://v", role_id="r"), "VAULT_SECRET_ID is not set"),
        (VaultAccess("v:8200", token="t"), "VAULT_ADDR must begin"),
        (VaultAccess("http://vault.example:8200", token="t", production=True), "PRODUCTION=true refuses VAULT_ADDR"),
        (VaultAccess("http://10.0.0.7:8200", token="t", production=True), "PRODUCTION=true refuses VAULT_ADDR"),
        (VaultAccess("https://v", token="t", cacert=Path("/no/such")), "VAULT_CACERT"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(access: VaultAccess, named: str) -> None:
    with pytest.raises(VaultStoreError, match=named):
        VaultStore(access)


@pytest.mark.parametrize(
    ("addr", "production"),
    [("http://127.0.0.1:8200", True), ("http://localhost:8200", True), ("http://[::1]:8200", True),
     ("https://vault.example", True), ("http://vault.example:8200", False)],
)  # fmt: skip
def test_http_is_taken_from_this_machine_and_elsewhere_outside_of_production(addr: str, production: bool) -> None:
    VaultAccess(addr, token="t", production=production).check()


def test_no_secret_is_in_what_is_printed() -> None:
    assert "hidden" not in repr(VaultAccess("https://v", token="hidden-1", secret_id="hidden-2"))
