"""What somebody in quarantine is told: by the gate as a job's error, by the ingress as a 403."""

from datetime import datetime
from math import ceil

from schemas.events import FOREVER, JobError, UserUpdated

QUARANTINED = "quarantined"
MAX_TOLD_WAIT_S = 86_400  # of one that only an admin ends: to ask again once a day does no harm


def quarantined(user: UserUpdated, now: datetime) -> JobError:
    """Why nothing of this user's is taken, until when, and who can change it."""
    until = user.quarantined_until or now
    wait_s = max(1, ceil((until - now).total_seconds()))
    ends = (
        "until an admin lifts it" if until >= FOREVER else f"until {until:%Y-%m-%d %H:%M:%S} UTC, or an admin lifts it"
    )
    message = f"too many of your requests were refused as attacks: nothing of yours is taken {ends}"
    return JobError(code=QUARANTINED, message=message, retry_after_s=min(wait_s, MAX_TOLD_WAIT_S))
