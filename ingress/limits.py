"""Bounds that routes ask for."""

from dataclasses import dataclass

from schemas.events import UserUpdated

DEFAULT_LISTENERS = 100  # of users; admins have no limit unless one is set


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_page`: items of a list; `max_listeners`: answers that one user listens to at once here, None: not set."""

    max_page: int = 100
    max_listeners: int | None = None

    def page(self, limit: int) -> int:
        """How many items a page holds where so many were asked for; `next` goes on behind them."""
        return min(limit, self.max_page)

    def listeners_of(self, user: UserUpdated) -> int | None:
        """How many answers they may listen to at once, here."""
        if self.max_listeners is not None:
            return self.max_listeners
        return None if user.role == "admin" else DEFAULT_LISTENERS
