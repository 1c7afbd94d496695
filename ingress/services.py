"""What the routes work with, and who is asking."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from ingress.cancel_requests import CancelRequests
from ingress.follower import Follower
from ingress.passwords import Passwords
from ingress.problems import Problem
from ingress.publisher import Publisher
from ingress.submission import Submissions
from ingress.tokens import InvalidTokenError, Tokens
from schemas.events import UserUpdated, WorkerHeartbeat
from schemas.ids import JobIds
from schemas.topics import Catalog
from sinks.pool import Pool
from sinks.postgres import JobStore
from sinks.users import UserStore
from sinks.webhook_signing import WebhookSecrets
from sinks.webhook_store import WebhookStore
from transport.table import CompactedTable

SILENT_WORKER_S = 15.0


@dataclass
class Services:
    """Made once by `create_app`."""

    catalog: Catalog
    publisher: Publisher
    follower: Follower
    submissions: Submissions
    cancel_requests: CancelRequests
    user_table: CompactedTable[UserUpdated]
    workers: CompactedTable[WorkerHeartbeat]
    database: Pool
    jobs: JobStore
    users: UserStore
    webhooks: WebhookStore
    webhook_secrets: WebhookSecrets
    tokens: Tokens
    passwords: Passwords
    job_ids: JobIds
    expires_after_s: int


def live_workers(workers: CompactedTable[WorkerHeartbeat]) -> list[WorkerHeartbeat]:
    """Those heard of in the last 15 s."""
    now = datetime.now(UTC)
    return [
        beat
        for beat in workers.values.values()
        if not beat.stopped and (now - beat.at).total_seconds() < SILENT_WORKER_S
    ]


def present_providers(workers: CompactedTable[WorkerHeartbeat]) -> list[str]:
    """Providers that a live worker can reach."""
    return sorted({offer.name for beat in live_workers(workers) for offer in beat.providers})


def services(request: Request) -> Services:
    """Of the app."""
    found: Services = request.app.state.services
    return found


# Its dialog in Swagger takes name and password; every other client sends what POST /auth/login gave it.
_bearer = OAuth2PasswordBearer(tokenUrl="auth/token", auto_error=False)


async def current_user(request: Request, token: Annotated[str | None, Depends(_bearer)]) -> UserUpdated:
    """Who asks: the token says who, `user-updated` what they may."""
    found = services(request)
    if token is not None:
        try:
            claims = found.tokens.verify(token)
        except InvalidTokenError:
            pass
        else:
            user = found.user_table.values.get(claims.user_id)
            if user is not None and not user.disabled and user.token_epoch <= claims.epoch:
                return user
    raise Problem(
        401, "not-authenticated", "send Authorization: Bearer <token>, from POST /auth/login",
        headers={"WWW-Authenticate": "Bearer"},
    )  # fmt: skip


async def admin(user: Annotated[UserUpdated, Depends(current_user)]) -> UserUpdated:
    """The same, and an admin."""
    if user.role != "admin":
        raise Problem(403, "not-allowed", "only admins may do this")
    return user


Found = Annotated[Services, Depends(services)]
CurrentUser = Annotated[UserUpdated, Depends(current_user)]
Admin = Annotated[UserUpdated, Depends(admin)]
