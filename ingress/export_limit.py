"""How many exports are under way at once, and how long one may be."""

from collections import Counter
from dataclasses import dataclass, field

from ingress.http.problems import Problem
from sinks.job_export import JobExport


@dataclass
class Exports:
    """Those of this replica: where they read, and what bounds them."""

    jobs: JobExport
    at_once: int = 8
    per_user: int = 2
    stall_s: float = 30.0
    longest_s: float = 3600.0
    under_way: Counter[str] = field(default_factory=Counter)

    def begin(self, user_id: str) -> None:
        """Take a place; raises Problem where there is none."""
        if self.under_way[user_id] >= self.per_user or self.under_way.total() >= self.at_once:
            detail = "as many exports as are allowed at once are under way: try again when one has ended"
            raise Problem(429, "too-many-exports", detail, headers={"Retry-After": "10"}, retry_after_s=10)
        self.under_way[user_id] += 1

    def end(self, user_id: str) -> None:
        """Give it back."""
        self.under_way[user_id] -= 1
        if not self.under_way[user_id]:
            del self.under_way[user_id]
