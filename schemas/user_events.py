"""What is known of users, beside their jobs."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from schemas.event_base import Event, Time
from schemas.job_events import JobSource, Run
from schemas.request_fields import Role, UserId


class UserUpdated(Event):
    """A user as the gate and the ingress must know it (compacted by user_id).

    `disabled` is for ever where the user was deleted; `token_epoch`: tokens of a lower one are worth nothing. The
    limits are this user's own, None where those of the user's role hold. `quarantined_until`: until then nothing of
    theirs is taken.
    """

    user_id: UserId
    role: Role
    disabled: bool = False
    token_epoch: int = 0
    rate_limit_requests: int | None = None
    tokens_per_minute: int | None = None
    max_in_flight: int | None = None
    max_pending: int | None = None
    quarantined_until: Time | None = None

    def is_quarantined(self, now: datetime) -> bool:
        """Nothing of theirs is taken now."""
        return self.quarantined_until is not None and now < self.quarantined_until


class SecurityIncidentDetected(Event):
    """Somebody tried what a rule is against. Its `ce_id` is the incident's: the same event makes the same one.

    `reason`: the kind of rule, never the pattern; `source`: the way in; `address`: the caller's, where an ingress knew
    it; `score`: how sure we are (0-1); `excerpt`: the beginning of the text, its secrets masked.
    """

    at: Time
    user_id: Annotated[str, Field(max_length=128)]
    reason: Annotated[str, Field(max_length=100)]
    stage: Annotated[str, Field(max_length=100)]
    job_id: UUID | None = None
    run: Run = 1
    source: JobSource | None = None
    address: Annotated[str, Field(max_length=45)] | None = None
    score: float = 1.0
    excerpt: Annotated[str, Field(max_length=200)] = ""
