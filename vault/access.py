"""Where the secret is and who we are; by itself, so that hvac is loaded only where there is a Vault."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from vault.errors import VaultStoreError


@dataclass(frozen=True, slots=True)
class VaultAccess:
    """Where the secret is, and who we are: each field is the setting `VAULT_...`, but `production`."""

    addr: str
    mount: str = "secret"
    path: str = "ai-assistant-api"
    namespace: str | None = None
    cacert: Path | None = None
    token: str | None = field(default=None, repr=False)
    role_id: str | None = None
    secret_id: str | None = field(default=None, repr=False)
    kubernetes_role: str | None = None
    kubernetes_token_path: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    production: bool = False

    def check(self) -> None:
        """Refuse what contradicts itself, and in production what others could read.

        Raises:
            VaultStoreError: Names the variable.
        """
        if not self.addr.startswith(("http://", "https://")):
            raise VaultStoreError("VAULT_ADDR must begin with http:// or https://")
        if self.production and self.addr.startswith("http://") and not _is_loopback(self.addr):
            raise VaultStoreError(
                "PRODUCTION=true refuses VAULT_ADDR over http: every secret, and what proves who we are, would go "
                "readable over the network; begin it with https://"
            )
        ways = {"VAULT_TOKEN": self.token, "VAULT_ROLE_ID": self.role_id, "VAULT_KUBERNETES_ROLE": self.kubernetes_role}
        given = [name for name, value in ways.items() if value]
        if not given:
            raise VaultStoreError(
                "VAULT_ADDR is set, and none of VAULT_TOKEN, VAULT_ROLE_ID (with VAULT_SECRET_ID) and "
                "VAULT_KUBERNETES_ROLE: set one of them, or take VAULT_ADDR out"
            )
        if len(given) > 1:
            raise VaultStoreError(f"{' and '.join(given)} are set: one way to log in to Vault is enough, choose it")
        if self.role_id and not self.secret_id:
            raise VaultStoreError("VAULT_SECRET_ID is not set: VAULT_ROLE_ID needs it")
        if self.cacert is not None and not self.cacert.is_file():
            raise VaultStoreError(f"VAULT_CACERT: there is no file {self.cacert}")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
