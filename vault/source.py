"""Vault as a source of settings: below the environment and `.env`, above the defaults."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from vault.access import VaultAccess

logger = logging.getLogger(__name__)
PREFIX = "vault_"
_BOOL = TypeAdapter(bool)


class VaultSource(PydanticBaseSettingsSource):
    """Asks Vault once for each time that the settings are read; not at all without `VAULT_ADDR`."""

    def __init__(
        self, settings_cls: type[BaseSettings], higher: Sequence[PydanticBaseSettingsSource],
        *, none_where_empty: Collection[str],
    ) -> None:  # fmt: skip
        """`higher`: the sources that win; `none_where_empty`: fields of which an empty value there is none."""
        super().__init__(settings_cls)
        self._higher, self._none_where_empty = higher, none_where_empty

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Not called: all are read at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Field -> value.

        Raises:
            VaultStoreError: Vault is named, and gives nothing.
        """
        given: dict[str, Any] = {}
        for source in reversed(self._higher):
            given |= source()
        access = access_of(given, self.settings_cls)
        if access is None:
            return {}
        from vault.store import store_of  # loads hvac

        store = store_of(access)
        found = taken(store.read(), self.settings_cls, given=given, none_where_empty=self._none_where_empty)
        store.gave = frozenset(found)
        return found


def taken(
    values: Mapping[str, Any], settings_cls: type[BaseSettings], *, given: Mapping[str, Any],
    none_where_empty: Collection[str],
) -> dict[str, Any]:  # fmt: skip
    """What counts of a secret's values: names of settings that nobody above has given."""
    return {
        name: value
        for name, value in ((key.lower(), value) for key, value in values.items())
        if name in settings_cls.model_fields
        and not name.startswith(PREFIX)
        and (name not in given or (given[name] == "" and name in none_where_empty))
    }


def access_of(given: Mapping[str, Any], settings_cls: type[BaseSettings]) -> VaultAccess | None:
    """From the `vault_...` among what is given; None without an address."""
    if not given.get("vault_addr"):
        return None
    found: dict[str, Any] = {}
    for name in VaultAccess.__dataclass_fields__.keys() - {"production"}:
        value = given.get(PREFIX + name) or settings_cls.model_fields[PREFIX + name].default
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        found[name] = Path(value) if value is not None and name in ("cacert", "kubernetes_token_path") else value
    return VaultAccess(**found, production=_BOOL.validate_python(given.get("production") or False))
