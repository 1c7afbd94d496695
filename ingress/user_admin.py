"""Users, for admins: who there is, what they may, and that they may no longer."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Response
from pydantic import Field

from ingress.http.problems import Problem, not_found
from ingress.services import Found, UserAdmin
from ingress.users import Password, tell
from schemas.request_fields import RequestBody, Role, UserId
from sinks.postgres import MAX_PAGE, InvalidCursorError
from sinks.users import LastAdminError, UserRow

router = APIRouter(prefix="/users", tags=["users"])
MOST = 1_000_000_000
Limit = Annotated[int, Field(strict=True, ge=0, le=MOST)]
CONFLICT: dict[int | str, dict[str, Any]] = {409: {"description": "No admin would be left"}}


class UserView(RequestBody):
    """A user; a limit that is null is the settings'."""

    user_id: str
    role: Role
    disabled: bool
    rate_limit_requests: int | None
    tokens_per_minute: int | None
    max_in_flight: int | None
    max_pending: int | None
    created_at: datetime | None

    @classmethod
    def of(cls, row: UserRow) -> Self:
        """As admins see it."""
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class UserPage(RequestBody):
    """Some of them, and the cursor of those after them."""

    items: list[UserView]
    next: str | None


class UserPatch(RequestBody):
    """Body of `PATCH /users/{user_id}`: what is left out stays; a limit that is null is the settings' again."""

    disabled: Annotated[bool, Field(strict=True, default_factory=bool)]
    password: Annotated[Password, Field(default_factory=str)]
    role: Annotated[Role, Field(default_factory=lambda: "user")]
    rate_limit_requests: Annotated[Limit | None, Field(description="Requests per RATE_LIMIT_WINDOW")] = None
    tokens_per_minute: Limit | None = None
    max_in_flight: Annotated[Limit | None, Field(description="Jobs at work at a time")] = None
    max_pending: Annotated[Limit | None, Field(description="Jobs that have not ended")] = None


@router.get("")
async def users(
    user: UserAdmin,  # noqa: ARG001 an admin must ask
    found: Found,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str | None, Query(max_length=1000)] = None,
) -> UserPage:
    """Everybody, by name; not those who were deleted."""
    try:
        after = _decode(cursor) if cursor else ""
    except InvalidCursorError as error:
        raise Problem(400, error.code, error.message) from None
    rows = await found.users.page(after=after, limit=limit + 1, with_deleted=False)
    following = _encode(rows[limit - 1].user_id) if len(rows) > limit else None
    return UserPage(items=[UserView.of(row) for row in rows[:limit]], next=following)


@router.get("/{user_id}")
async def one(user_id: UserId, user: UserAdmin, found: Found) -> UserView:  # noqa: ARG001 as above
    """One user."""
    row = await found.users.get(user_id)
    if row is None or row.deleted_at is not None:
        raise not_found()
    return UserView.of(row)


@router.patch("/{user_id}", responses=CONFLICT)
async def change(user_id: UserId, body: UserPatch, user: UserAdmin, found: Found) -> UserView:  # noqa: ARG001 as above
    """Disable or enable a user, give them another password or role, or limits of their own.

    Whoever is disabled, or gets another password or role, loses all tokens within 5 s, and streams end. Jobs of one
    who is disabled end with `user-disabled`, also those that a provider is at work on; in other cases they go on.
    """
    changes: dict[str, Any] = body.model_dump(include=body.model_fields_set - {"password"})
    if "password" in body.model_fields_set:
        changes["password_hash"] = await found.passwords.hash(body.password)
    try:
        row = await found.users.change(user_id, changes)
    except LastAdminError as error:
        raise Problem(409, error.code, error.message) from None
    if row is None:
        raise not_found()
    await tell(found, user_id)
    return UserView.of(row)


@router.delete("/{user_id}", status_code=204, responses=CONFLICT)
async def delete(user_id: UserId, user: UserAdmin, found: Found) -> Response:  # noqa: ARG001 as above
    """Delete a user with their API keys, for ever: nobody gets the name again, for jobs under it stay.

    The jobs that have not ended do, with `user-disabled`; those that have are seen by admins only.
    """
    try:
        is_gone = await found.users.delete(user_id)
    except LastAdminError as error:
        raise Problem(409, error.code, error.message) from None
    if not is_gone:
        raise not_found()
    await tell(found, user_id)
    return Response(status_code=204)


def _encode(user_id: str) -> str:
    return base64.urlsafe_b64encode(user_id.encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        after = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (ValueError, binascii.Error):
        raise InvalidCursorError from None
    if "\x00" in after or _encode(after) != cursor:
        raise InvalidCursorError
    return after
