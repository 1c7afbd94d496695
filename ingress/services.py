"""What the routes work with, and who is asking."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from ingress.bodies import Bodies
from ingress.cancel_requests import CancelRequests
from ingress.channels import Channels
from ingress.compare_table import CompareRules
from ingress.comparing import Comparing
from ingress.export_limit import Exports
from ingress.follower import Follower
from ingress.idempotency import Idempotency
from ingress.images import Images
from ingress.login_limit import LoginLimit
from ingress.model_names import Models
from ingress.passwords import Passwords
from ingress.problems import Problem
from ingress.publisher import Publisher
from ingress.redrive import Redriver
from ingress.submission import Submissions
from schemas.events import UserUpdated, WorkerHeartbeat
from schemas.ids import JobIds
from schemas.topics import Catalog
from sinks.comparisons import ComparisonStore
from sinks.dead_letters import DeadLetterStore
from sinks.due_store import DueStore
from sinks.pool import Pool
from sinks.postgres import JobStore
from sinks.users import UserStore
from sinks.webhook_signing import WebhookSecrets
from sinks.webhook_store import WebhookStore
from transport.table import CompactedTable
from transport.tokens import InvalidTokenError, Tokens


@dataclass
class Services:
    """Made once by `create_app`."""

    catalog: Catalog
    publisher: Publisher
    follower: Follower
    submissions: Submissions
    bodies: Bodies
    images: Images
    cancel_requests: CancelRequests
    channels: Channels
    idempotency: Idempotency
    user_table: CompactedTable[UserUpdated]
    workers: CompactedTable[WorkerHeartbeat]
    models: Callable[[], Models]
    database: Pool
    jobs: JobStore
    exports: Exports
    comparisons: ComparisonStore
    comparing: Comparing
    compare_rules: CompareRules
    due: DueStore
    users: UserStore
    webhooks: WebhookStore
    webhook_secrets: WebhookSecrets
    dead_letters: DeadLetterStore
    redriver: Redriver
    tokens: Tokens
    passwords: Passwords
    login_limit: LoginLimit
    job_ids: JobIds
    expires_after_s: int


def services(request: Request) -> Services:
    """Of the app."""
    found: Services = request.app.state.services
    return found


async def _services(request: Request) -> Services:
    """The same as a dependency: a plain function would be run in another thread for each request."""
    return services(request)


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
            if not found.user_table.is_running:
                detail = "the users are not read yet, so nobody can be told from a stranger; try again soon"
                raise Problem(503, "not-ready", detail, headers={"Retry-After": "2"})
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


Found = Annotated[Services, Depends(_services)]
CurrentUser = Annotated[UserUpdated, Depends(current_user)]
Admin = Annotated[UserUpdated, Depends(admin)]
