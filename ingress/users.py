"""Login, registration, and what everybody may do about their own password."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from pydantic import Field

from ingress.announcer import NotKnownError
from ingress.http.problems import Problem
from ingress.services import Found, LoggedInUser, Services, UserAdmin
from schemas.request_fields import RequestBody, Role, UserId
from sinks.login_failures import Reason
from sinks.users import UserExistsError, UserRow

router = APIRouter(prefix="/auth", tags=["users"])
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


class PasswordBody(RequestBody):
    """Body of `POST /auth/password`."""

    old_password: Annotated[str, Field(max_length=256)]
    new_password: Password


class TokenReply(RequestBody):
    """A token to send as `Authorization: Bearer <access_token>`."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 OAuth's word


@router.post("/login")
async def login(body: LoginBody, request: Request, found: Found) -> TokenReply:
    """Get a token for a name and password."""
    return await _log_in(found, body.user_id, body.password, address_of(request))


@router.post("/token", include_in_schema=False)
async def login_by_form(
    username: Annotated[str, Form(max_length=128)],
    password: Annotated[str, Form(max_length=256)],
    request: Request,
    found: Found,
) -> TokenReply:
    """The same as Swagger's dialog sends it (OAuth 2 password form)."""
    return await _log_in(found, username, password, address_of(request))


@router.post("/register", status_code=201)
async def register(body: RegisterBody, user: UserAdmin, found: Found) -> TokenReply:  # noqa: ARG001 an admin must ask
    """Create a user (admins only); answers the new user's token."""
    try:
        row = await found.users.create(body.user_id, await found.passwords.hash(body.password), body.role)
    except UserExistsError as error:
        raise Problem(400, error.code, error.message) from None
    return await _announced_token(found, row)


@router.post("/password")
async def change_password(body: PasswordBody, user: LoggedInUser, request: Request, found: Found) -> TokenReply:
    """Change your own password; every token of yours is worth nothing from then on, but for the one in the answer.

    Streams that were opened with them end; your jobs and your API keys go on.
    """
    address = address_of(request)
    place = f"session of {user.user_id}"  # who guesses with a token that they found slows down nobody's login
    await _slow_down(found, user.user_id, address, place=place)
    row = await found.users.get(user.user_id)
    stored = row.password_hash if row is not None else None
    fits, _ = await found.passwords.verify(body.old_password, stored)
    if not fits:
        await found.login_failures.add(user_id=user.user_id, address=address, reason="wrong-password")
        raise Problem(403, "wrong-password", "the old password is wrong")
    found.login_limit.give_back(user.user_id, place)
    changes = {"password_hash": await found.passwords.hash(body.new_password)}
    changed = await found.users.change(user.user_id, changes, password_was=stored)
    if changed is None:
        raise Problem(409, "changed-meanwhile", "somebody else has just changed this user: log in again")
    return await _announced_token(found, changed)


@router.post("/logout-everywhere", status_code=204)
async def log_out_everywhere(user: LoggedInUser, found: Found) -> Response:
    """Every token of yours is worth nothing from now on; API keys are deleted one by one, with `DELETE /api-keys/...`.

    Streams that were opened with a token end; jobs go on.
    """
    await found.users.change(user.user_id, {}, revoke=True)
    await tell(found, user.user_id)
    return Response(status_code=204)


def address_of(request: Request) -> str:
    """From where a request comes."""
    return request.client.host if request.client else "unknown"


async def tell(found: Services, user_id: str) -> None:
    """Return once everybody can know of a change that is stored.

    Raises:
        Problem: Not yet; it comes about by itself.
    """
    try:
        await found.announcer.tell(user_id)
    except NotKnownError:
        detail = "the change is stored, and is in force once Kafka answers: nothing more has to be done"
        raise Problem(503, "not-announced", detail, headers={"Retry-After": "2"}) from None


async def _slow_down(found: Services, user_id: str, address: str, *, place: str | None = None) -> None:
    """Raises Problem for who has guessed wrong too often; of a row of them the first is written down.

    `place`: by which guesses are counted, where it is not the address.
    """
    try:
        found.login_limit.take(user_id, place or address)
    except Problem:
        if found.login_limit.is_news(user_id, address):
            await found.login_failures.add(user_id=user_id, address=address, reason="slowed-down")
        raise


async def _log_in(found: Services, user_id: str, password: str, address: str) -> TokenReply:
    await _slow_down(found, user_id, address)
    row = await found.users.get(user_id) if "\x00" not in user_id else None
    if row is not None and row.deleted_at is not None:
        row = None  # there is no hash that would take as long
    fits, newer_hash = await found.passwords.verify(password, row.password_hash if row else None)
    if row is None or not fits or row.disabled:
        # Before the answer: who guesses hears nothing that is not written down.
        failures = await found.login_failures.add(user_id=user_id, address=address, reason=_reason(row, fits=fits))
        found.login_limit.learn(user_id, address, failures)
        raise Problem(401, "wrong-credentials", "the user or the password is wrong")
    found.login_limit.give_back(user_id, address)
    if newer_hash is not None:
        await found.users.set_password_hash(user_id, newer_hash, instead_of=row.password_hash)
    return await _announced_token(found, row)


def _reason(row: UserRow | None, *, fits: bool) -> Reason:
    if row is None:
        return "unknown-user"
    return "user-disabled" if fits else "wrong-password"


async def _announced_token(found: Services, row: UserRow) -> TokenReply:
    """A user whom the others do not know yet gets nowhere: told now, also where an earlier try was cut short."""
    if not row.announced or row.user_id not in found.user_table.values:
        try:
            await found.announcer.tell(row.user_id)
        except NotKnownError:
            detail = "Kafka does not answer, so the user is not known everywhere yet; log in again soon"
            raise Problem(503, "not-accepted", detail, headers={"Retry-After": "2"}) from None
    return TokenReply(access_token=found.tokens.issue(row.user_id, role=row.role, epoch=row.token_epoch))
