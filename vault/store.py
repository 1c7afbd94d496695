"""Reads one KV v2 secret by hvac: logs in, renews its token before it ends, and says what is wrong in a sentence."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import hvac
import requests
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, Unauthorized, VaultDown, VaultError

from vault.access import VaultAccess
from vault.errors import VaultAwayError, VaultStoreError

logger = logging.getLogger(__name__)

TIMEOUT_S = 5
RENEW_AT = 0.5  # of a token's life
RETRY_RENEWAL_S = 10.0


class VaultStore:
    """One login, kept. Blocks, so it is called from a thread where an event loop runs; may be shared by threads.

    `gave`: the settings (fields) that have their values from it.
    """

    def __init__(self, access: VaultAccess, *, now: Callable[[], float] = time.monotonic) -> None:
        """Logs in when it is first read. Raises VaultStoreError where `access` contradicts itself."""
        access.check()
        self._access, self._now, self._lock = access, now, threading.Lock()
        self._client = hvac.Client(
            url=access.addr, token="", namespace=access.namespace, timeout=TIMEOUT_S,
            verify=str(access.cacert) if access.cacert else None,
        )  # fmt: skip
        self._renew_at = float("inf")
        self._has_login = False
        self.gave: frozenset[str] = frozenset()

    @property
    def renew_in_s(self) -> float:
        """How long until the token is to be renewed; infinite for one that lives for ever."""
        return max(0.0, self._renew_at - self._now())

    def read(self) -> Mapping[str, Any]:
        """The newest version of the secret: name -> value.

        Raises:
            VaultAwayError: Vault does not answer, or is sealed.
            VaultStoreError: It refuses us, or has no such secret.
        """
        with self._lock, self._told():
            self._keep_login()
            try:
                return self._values()
            except Forbidden:  # the token may have ended before its time
                if self._access.token:
                    raise
                self._log_in()
                return self._values()

    def _values(self) -> Mapping[str, Any]:
        reply = self._client.secrets.kv.v2.read_secret_version(
            path=self._access.path, mount_point=self._access.mount, raise_on_deleted_version=True
        )
        found: Mapping[str, Any] = reply["data"]["data"]
        return found

    # --- the token ---

    def _keep_login(self) -> None:
        if not self._has_login:
            self._log_in()
        elif self._now() >= self._renew_at:
            try:
                self._note(self._client.auth.token.renew_self()["auth"])
            except (Forbidden, InvalidRequest):  # it has ended, or has reached its longest life
                if not self._access.token:
                    self._log_in()
                else:
                    self._renew_at = self._now() + RETRY_RENEWAL_S

    def _log_in(self) -> None:
        access, auth = self._access, self._client.auth
        if access.token:
            self._client.token = access.token
            known = auth.token.lookup_self()["data"]
            self._note({"lease_duration": known.get("ttl", 0), "renewable": known.get("renewable", False)})
        elif access.role_id:
            self._note(auth.approle.login(role_id=access.role_id, secret_id=access.secret_id)["auth"])
        else:
            try:
                jwt = access.kubernetes_token_path.read_text().strip()
            except OSError:
                raise VaultStoreError(
                    f"VAULT_KUBERNETES_TOKEN_PATH: {access.kubernetes_token_path} cannot be read: is this a pod with a "
                    "service account?"
                ) from None
            self._note(auth.kubernetes.login(role=access.kubernetes_role, jwt=jwt)["auth"])
        self._has_login = True

    def _note(self, auth: Mapping[str, Any]) -> None:
        lease_s = float(auth.get("lease_duration") or 0)
        # Of a token that is given and cannot be renewed nobody else could say when it ends: the read does.
        is_ours_to_renew = auth.get("renewable") or not self._access.token
        self._renew_at = self._now() + lease_s * RENEW_AT if lease_s and is_ours_to_renew else float("inf")

    @contextmanager
    def _told(self) -> Iterator[None]:
        where = f"{self._access.mount}/{self._access.path}"
        try:
            yield
        except InvalidPath:
            raise VaultStoreError(
                f"Vault at {self._access.addr} has no KV v2 secret {where}: write it with "
                f"`vault kv put -mount={self._access.mount} {self._access.path} NAME=value ...`, or set VAULT_MOUNT "
                "and VAULT_PATH"
            ) from None
        except (Forbidden, Unauthorized, InvalidRequest):
            raise VaultStoreError(
                f"Vault at {self._access.addr} refuses us: {self._who()} must be good, and its policy give `read` on "
                f"{self._access.mount}/data/{self._access.path} (VAULT_NAMESPACE: {self._access.namespace or 'none'})"
            ) from None
        except VaultDown:
            raise VaultAwayError(f"Vault at {self._access.addr} is sealed or not ready: unseal it") from None
        except requests.exceptions.SSLError:
            raise VaultStoreError(
                f"Vault at {self._access.addr} is not trusted: set VAULT_CACERT to the PEM file of the authority that "
                "signed its certificate"
            ) from None
        except (requests.exceptions.RequestException, VaultError) as error:
            raise VaultAwayError(
                f"Vault at {self._access.addr} (VAULT_ADDR) does not answer ({type(error).__name__})"
            ) from None
        except (KeyError, TypeError, ValueError, AttributeError):
            raise VaultStoreError(f"what answers at {self._access.addr} (VAULT_ADDR) is no Vault with KV v2") from None

    def _who(self) -> str:
        if self._access.token:
            return "VAULT_TOKEN"
        if self._access.role_id:
            return "VAULT_ROLE_ID with VAULT_SECRET_ID"
        return "VAULT_KUBERNETES_ROLE with the pod's token"


_stores: dict[VaultAccess, VaultStore] = {}


def store_of(access: VaultAccess) -> VaultStore:
    """The one of this process: a secret id may be good for one login only.

    Raises:
        VaultStoreError: `access` contradicts itself.
    """
    if access not in _stores:
        _stores[access] = VaultStore(access)
    return _stores[access]
