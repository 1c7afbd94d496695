"""Where each setting comes from: the environment, `.env`, Vault, or its default. Values of secrets are never shown."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit

from pydantic import SecretStr

from settings import Settings, SettingsWithoutVault
from vault.source import access_of

MAX_SHOWN_CHARS = 60


Source = Literal["environment", ".env", "Vault", "default"]


@dataclass(frozen=True, slots=True)
class Origin:
    """One setting. `shown`: its value, or for a secret whether there is one."""

    name: str
    source: Source
    shown: str


def origins(
    settings: Settings, *, environ: Mapping[str, str], env_file: Mapping[str, str | None], vault: Collection[str] = ()
) -> list[Origin]:
    """All settings, in the order of the class; the environment wins over `.env`. `vault`: the fields that it gave."""
    in_environment, in_file = {name.upper() for name in environ}, {name.upper() for name in env_file}
    found = []
    for field, info in Settings.model_fields.items():
        name = field.upper()
        source: Source = "default"
        if field in vault:  # also where the environment has an empty one
            source = "Vault"
        elif name in in_environment or name in in_file:
            source = "environment" if name in in_environment else ".env"
        is_secret = info.annotation is SecretStr or SecretStr in get_args(info.annotation)
        found.append(Origin(name, source, _shown(getattr(settings, field), is_secret=is_secret)))
    return found


def from_vault(settings: Settings) -> frozenset[str]:
    """The fields that have their values from Vault, of settings that were read in this process."""
    access = access_of({name: getattr(settings, name) for name in settings.model_fields_set}, type(settings))
    if access is None or isinstance(settings, SettingsWithoutVault):
        return frozenset()
    from vault.store import store_of  # loads hvac

    return store_of(access).gave


def _shown(value: object, *, is_secret: bool) -> str:
    if is_secret:
        is_set = isinstance(value, SecretStr) and bool(value.get_secret_value())
        return "(set)" if is_set else "(not set)"
    if value is None:
        return "(not set)"
    text = without_credentials(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def without_credentials(url: str) -> str:
    """An address without the user and password that may be in it, and without its query."""
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
