"""Login and registration; users live in Postgres, and everybody else knows them by `user-updated`."""

import asyncio
from typing import Annotated

from aiokafka.errors import KafkaError
from fastapi import APIRouter, Form, Request
from pydantic import Field

from ingress.passwords import Passwords
from ingress.problems import Problem
from ingress.publisher import NotAcceptedError, OutcomeUnknownError, Publisher
from ingress.services import Admin, Found, Services
from schemas.requests import RequestBody, Role, UserId
from sinks.users import UserExistsError, UserRow, UserStore
from transport.table import NotStartedError

router = APIRouter(prefix="/auth", tags=["users"])
KNOWN_WITHIN_S = 5.0
Password = Annotated[str, Field(min_length=8, max_length=256)]


class LoginBody(RequestBody):
    """Body of `POST /auth/login`."""

    user_id: Annotated[str, Field(max_length=128)]
    password: Annotated[str, Field(max_length=256)]


class RegisterBody(RequestBody):
    """Body of `POST /auth/register`."""

    user_id: UserId
    password: Password
    role: Role = "user"


class TokenReply(RequestBody):
    """A token to send as `Authorization: Bearer <access_token>`."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 OAuth's word


@router.post("/login")
async def login(body: LoginBody, request: Request, found: Found) -> TokenReply:
    """Get a token for a name and password."""
    return await _log_in(found, body.user_id, body.password, _address(request))


@router.post("/token", include_in_schema=False)
async def login_by_form(
    username: Annotated[str, Form(max_length=128)],
    password: Annotated[str, Form(max_length=256)],
    request: Request,
    found: Found,
) -> TokenReply:
    """The same as Swagger's dialog sends it (OAuth 2 password form)."""
    return await _log_in(found, username, password, _address(request))


@router.post("/register", status_code=201)
async def register(body: RegisterBody, user: Admin, found: Found) -> TokenReply:  # noqa: ARG001 an admin must ask
    """Create a user (admins only); answers the new user's token."""
    try:
        row = await found.users.create(body.user_id, await found.passwords.hash(body.password), body.role)
    except UserExistsError as error:
        raise Problem(400, error.code, error.message) from None
    return await _announced_token(found, row)


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


async def _log_in(found: Services, user_id: str, password: str, address: str) -> TokenReply:
    found.login_limit.take(user_id, address)
    row = await found.users.get(user_id) if "\x00" not in user_id else None
    fits, newer_hash = await found.passwords.verify(password, row.password_hash if row else None)
    if row is None or not fits or row.disabled:
        raise Problem(401, "wrong-credentials", "the user or the password is wrong")
    found.login_limit.give_back(user_id, address)
    if newer_hash is not None:
        await found.users.set_password_hash(user_id, newer_hash)
    return await _announced_token(found, row)


async def _announced_token(found: Services, row: UserRow) -> TokenReply:
    """A user whom the others do not know yet gets nowhere: told now, also where an earlier try was cut short."""
    if not row.announced or row.user_id not in found.user_table.values:
        try:
            await announce(row, found.users, found.publisher, found.catalog.full_name("user-updated"))
            async with asyncio.timeout(KNOWN_WITHIN_S):
                await found.user_table.reach_end()
        except (NotAcceptedError, OutcomeUnknownError, TimeoutError, KafkaError, NotStartedError):
            detail = "Kafka does not answer, so the user is not known everywhere yet; log in again soon"
            raise Problem(503, "not-accepted", detail, headers={"Retry-After": "2"}) from None
    return TokenReply(access_token=found.tokens.issue(row.user_id, role=row.role, epoch=row.token_epoch))


async def announce(row: UserRow, users: UserStore, publisher: Publisher, topic: str) -> None:
    """Publish a user on `user-updated` as they are now, then write down that it was done.

    Raises:
        NotAcceptedError, OutcomeUnknownError: Kafka does not answer.
        RetryableError: Postgres does not.
    """
    async with users.announcing(row.user_id) as newest:
        if newest is not None:
            await publisher.publish(newest.announcement(topic))


async def ensure_root(password: str, users: UserStore, passwords: Passwords, publisher: Publisher, topic: str) -> None:
    """The first admin, `root`; an existing one keeps its password. May be called at every start."""
    row = await users.get("root")
    if row is None:
        try:
            row = await users.create("root", await passwords.hash(password), "admin")
        except UserExistsError:  # another replica was faster
            row = await users.get("root")
    if row is not None:  # always: a new Kafka beside an old Postgres has not heard of it
        await announce(row, users, publisher, topic)
