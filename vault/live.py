"""Settings that follow Vault: what changes there reaches whoever has subscribed, without a restart."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from processors.loops import Loop
from settings import NONE_WHERE_EMPTY, Settings, SettingsWithoutVault
from vault.errors import VaultStoreError
from vault.source import access_of, taken

if TYPE_CHECKING:
    from vault.store import VaultStore

logger = logging.getLogger(__name__)

Subscriber = Callable[[Settings], None]


class LiveSettings:
    """The newest settings of a process. Without Vault they stay as they are."""

    def __init__(self, settings: Settings, *, store: "VaultStore | None" = None) -> None:
        """`settings`: as they were read at start; `store`: for tests, otherwise the one that they were read from."""
        self.current = settings
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        access = access_of(given, type(settings))
        self._store = store
        if store is None and access is not None:
            from vault.store import store_of  # loads hvac

            self._store = store_of(access)
        gave = self._store.gave if self._store is not None else frozenset()
        # What Vault gave at start may change; all else is as it was, whatever has become of `.env` since.
        self._given = {name: value for name, value in given.items() if name not in gave}
        self._values: dict[str, Any] | None = None
        self._subscribers: list[Subscriber] = []
        self._away: str | None = None
        self._unfit: str | None = None

    @property
    def follows(self) -> bool:
        """There is a Vault."""
        return self._store is not None

    @property
    def problem(self) -> str | None:
        """Why the values may not be the newest; None where they are."""
        return self._away or self._unfit

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have it called, in the event loop and between two of its steps, with each change.

        What it raises as ValueError is told as a value that does not fit: it keeps what it has.
        """
        self._subscribers.append(subscriber)

    async def run(self) -> None:
        """Until cancelled; returns at once where there is no Vault."""
        if self._store is None:
            return
        loop, bug_s = Loop("following Vault"), 0.0
        while True:
            await asyncio.sleep(max(1.0, bug_s, min(self.current.vault_refresh_s, self._store.renew_in_s)))
            try:
                await self.refresh()
                loop.went_well()
                bug_s = 0.0
            except Exception as bug:
                bug_s = loop.met(bug)

    async def refresh(self) -> None:
        """Look once. Where Vault gives nothing, or what does not fit, the last values hold and `problem` says so."""
        if self._store is None:
            return
        before = self.problem
        try:
            found = await asyncio.to_thread(self._store.read)
        except VaultStoreError as error:
            self._away = f"{error}; the last values hold"
        else:
            self._away = None
            values = taken(found, Settings, given=self._given, none_where_empty=NONE_WHERE_EMPTY)
            if values != self._values:
                self._values = values
                self._unfit = self._take(values)
        if self.problem != before:
            logger.warning("%s", self.problem or "Vault's newest values hold")

    def _take(self, values: dict[str, Any]) -> str | None:
        """Hand on what has changed; returns what does not fit."""
        try:
            new = SettingsWithoutVault(_env_file=None, **self._given | values)
        except ValidationError as error:
            names = {"_".join(map(str, found["loc"])).upper() for found in error.errors(include_input=False)}
            return f"what Vault has does not fit ({', '.join(sorted(names))}); the last values hold"
        names = {name for name in Settings.model_fields if getattr(new, name) != getattr(self.current, name)}
        if not names:
            return None
        problems = []
        for subscriber in self._subscribers:
            try:
                subscriber(new)
            except ValueError as error:
                problems.append(f"a value in Vault does not fit ({error}); the last one holds")
        self.current = new
        logger.info("changed in Vault: %s", ", ".join(sorted(name.upper() for name in names)))
        return "; ".join(problems) or None


def told_of(live: LiveSettings) -> dict[str, str]:
    """For readiness, which it does not end."""
    return {"vault": live.problem} if live.problem is not None else {}
