"""What the routes work with, and who is asking."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer
from starlette.types import Scope as ASGIScope

from ingress.access.credentials import Access, Scope, Session
from ingress.access.key_ring import KeyRing
from ingress.access.login_limit import LoginLimit
from ingress.access.passwords import Passwords
from ingress.access.standings import Standings
from ingress.agent_runs import Agents
from ingress.announcer import Announcer
from ingress.comparisons.compare_table import CompareRules
from ingress.comparisons.comparing import Comparing
from ingress.export_limit import Exports
from ingress.files import Files
from ingress.follower import Follower
from ingress.following.channels import Channels
from ingress.http.bodies import Bodies
from ingress.http.problems import STANDING, Problem
from ingress.limits import Limits
from ingress.openai_api.model_names import Models
from ingress.publisher import Publisher
from ingress.redrive import Redriver
from ingress.submitting.cancel_requests import CancelRequests
from ingress.submitting.idempotency import Idempotency
from ingress.submitting.images import Images
from ingress.submitting.submission import Submissions
from ingress.voices import SpeechOffers
from schemas.audio_links import AudioLinks
from schemas.events import UserUpdated, WorkerHeartbeat
from schemas.ids import JobIds
from schemas.topics import Catalog
from sinks.adapters import AdapterStore
from sinks.api_keys import ApiKeyStore
from sinks.comparisons import ComparisonStore
from sinks.dead_letters import DeadLetterStore
from sinks.document_lists import DocumentLists
from sinks.due_store import DueStore
from sinks.examples import ExampleStore
from sinks.incidents import IncidentStore
from sinks.job_deletion import JobDeletion
from sinks.login_failures import LoginFailures
from sinks.payloads import PayloadStore
from sinks.pool import Pool
from sinks.postgres import JobStore
from sinks.users import UserStore
from sinks.webhook_signing import WebhookSecrets
from sinks.webhook_store import WebhookStore
from transport.table import CompactedTable
from transport.tokens import Tokens


@dataclass
class Services:
    """Made once by `create_app`."""

    catalog: Catalog
    publisher: Publisher
    follower: Follower
    submissions: Submissions
    standings: Standings
    limits: Limits
    bodies: Bodies
    images: Images
    files: Files
    documents: DocumentLists
    payloads: PayloadStore
    speech: SpeechOffers
    audio_links: AudioLinks
    cancel_requests: CancelRequests
    channels: Channels
    idempotency: Idempotency
    user_table: CompactedTable[UserUpdated]
    workers: CompactedTable[WorkerHeartbeat]
    models: Callable[[], Models]
    database: Pool
    jobs: JobStore
    deletion: JobDeletion
    exports: Exports
    examples: ExampleStore
    adapters: AdapterStore
    comparisons: ComparisonStore
    comparing: Comparing
    compare_rules: CompareRules
    due: DueStore
    users: UserStore
    webhooks: WebhookStore
    webhook_secrets: WebhookSecrets
    dead_letters: DeadLetterStore
    incidents: IncidentStore
    redriver: Redriver
    tokens: Tokens
    access: Access
    keys: KeyRing
    api_keys: ApiKeyStore
    passwords: Passwords
    login_limit: LoginLimit
    login_failures: LoginFailures
    announcer: Announcer
    job_ids: JobIds
    expires_after_s: int
    agents: Agents


LOOKING = ("GET", "HEAD")
TOO_MANY = {"description": "Rate limit; see RateLimit and Retry-After"}  # 429 of what is no job, but counted like one


def services(request: Request) -> Services:
    """Of the app."""
    found: Services = request.app.state.services
    return found


async def _services(request: Request) -> Services:
    """The same as a dependency: a plain function would be run in another thread for each request."""
    return services(request)


# Its dialog in Swagger takes name and password; every other client sends what POST /auth/login gave it.
bearer = OAuth2PasswordBearer(tokenUrl="auth/token", auto_error=False)


Token = Annotated[str | None, Depends(bearer)]


async def session_of(request: Request, token: Token) -> Session:
    """How whoever asks has shown who they are; kept with the request for whatever takes its time."""
    session = await services(request).access.session(token)
    request.state.session = session
    return session


async def current_user(request: Request, token: Token) -> UserUpdated:
    """Who asks, by a token or by an API key; a key without the scope `jobs` may only look.

    Raises:
        Problem: 401, 403, 503.
    """
    session = await session_of(request, token)
    if request.method not in LOOKING:
        require("jobs", session)
    return session.user


async def asking_user(request: Request, token: Token) -> UserUpdated:
    """The same where to look is not harmless."""
    session = await session_of(request, token)
    require("jobs", session)
    return session.user


async def costing_user(request: Request, user: Annotated[UserUpdated, Depends(current_user)]) -> UserUpdated:
    """The same, on a route that costs something: its answer says where the user stands (see `Edge`)."""
    request.scope["state"][STANDING] = partial(services(request).standings.of, user)
    return user


async def admin(user: Annotated[UserUpdated, Depends(current_user)]) -> UserUpdated:
    """The same, and an admin; of API keys those with the scope `admin`."""
    if user.role != "admin":
        raise Problem(403, "not-allowed", "only admins may do this")
    return user


async def user_admin(request: Request, token: Token) -> UserUpdated:
    """An admin who manages users; of API keys those with the scope `users`."""
    session = await session_of(request, token)
    found = services(request).user_table.values.get(session.user.user_id)
    if found is None or found.role != "admin":
        raise Problem(403, "not-allowed", "only admins may do this")
    require("users", session)
    return found


async def logged_in_user(request: Request, token: Token) -> UserUpdated:
    """Whoever has a password and not just a key: a key that was stolen makes no other keys."""
    session = await session_of(request, token)
    if session.key_id is not None:
        raise Problem(403, "login-required", "no API key may do this: use a token of POST /auth/login")
    return session.user


def require(scope: Scope, session: Session) -> None:
    """Raise Problem where the session is not good for this."""
    if scope not in session.scopes:
        raise Problem(403, "scope-missing", f"this API key lacks the scope `{scope}`: make one that has it")


@contextmanager
def until_revoked(scope: ASGIScope, end: Callable[[], None]) -> Iterator[None]:
    """While an answer takes its time: `end` is called as soon as what it was asked for with is no longer good."""
    session: Session | None = scope.get("state", {}).get("session")
    if session is None:
        yield
        return
    found: Services = scope["app"].state.services
    with found.access.held(session, end):
        yield


Found = Annotated[Services, Depends(_services)]
CurrentUser = Annotated[UserUpdated, Depends(current_user)]
AskingUser = Annotated[UserUpdated, Depends(asking_user)]
CostingUser = Annotated[UserUpdated, Depends(costing_user)]
Admin = Annotated[UserUpdated, Depends(admin)]
UserAdmin = Annotated[UserUpdated, Depends(user_admin)]
LoggedInUser = Annotated[UserUpdated, Depends(logged_in_user)]
