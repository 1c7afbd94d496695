"""API keys: for programs, usable wherever a token is."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, Field

from ingress.access.credentials import Scope
from ingress.access.key_ring import new_key
from ingress.cancelling import When
from ingress.http.problems import Problem, not_found
from ingress.services import CurrentUser, Found, LoggedInUser
from schemas.events import UserUpdated
from schemas.request_fields import RequestBody, Text, UserId
from sinks.api_keys import ApiKey, TooManyKeysError

router = APIRouter(prefix="/api-keys", tags=["users"])
FOR_ADMINS: frozenset[Scope] = frozenset(("admin", "users"))


def _to_come(at: datetime) -> datetime:
    if at <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return at


class KeyBody(RequestBody):
    """Body of `POST /api-keys`. Scopes: `read`: look; `jobs`: ask, too; `admin`: what admins see and do; `users`:
    manage users. Without any: all that you may do but managing users and keys."""

    name: Annotated[Text, Field(min_length=1, max_length=100, description="For you to know it by")]
    scopes: Annotated[list[Scope] | None, Field(min_length=1, max_length=4)] = None
    expires_at: Annotated[When, AfterValidator(_to_come)] | None = None


class KeyView(RequestBody):
    """A key, without what it is worth. `last_used_at`: to the minute or so."""

    id: UUID
    user_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, stored: ApiKey, **more: Any) -> Self:
        """As its user sees it."""
        return cls(
            id=stored.key_id, user_id=stored.user_id, name=stored.name, scopes=list(stored.scopes),
            created_at=stored.created_at, expires_at=stored.expires_at, last_used_at=stored.last_used_at, **more,
        )  # fmt: skip


class NewKeyView(KeyView):
    """The same with the key itself, this once."""

    key: Annotated[str, Field(description="To send as `Authorization: Bearer <key>`; it is shown here only")]


class KeyPage(RequestBody):
    """All of them: a user has 100 at most."""

    items: list[KeyView]
    next: Literal[None] = None


@router.post("", status_code=201, responses={409: {"description": "You have 100 keys"}})
async def create(body: KeyBody, user: LoggedInUser, found: Found) -> NewKeyView:
    """Make a key. Needs a token of `POST /auth/login`: a key makes no keys."""
    made = new_key()
    try:
        key = await found.api_keys.create(
            made.key_id, user_id=user.user_id, name=body.name, digest=made.digest, scopes=_scopes(body.scopes, user),
            expires_at=body.expires_at,
        )  # fmt: skip
    except TooManyKeysError as error:
        raise Problem(409, error.code, error.message) from None
    if key is None:  # disabled this very moment
        raise Problem(401, "not-authenticated", "this user may do nothing any more")
    return NewKeyView.of(key, key=made.presented)


@router.get("")
async def keys(
    user: CurrentUser,
    found: Found,
    user_id: Annotated[UserId | None, Query(description="Whose, for admins; your own otherwise")] = None,
) -> KeyPage:
    """Your keys, the newest first."""
    whose = user_id or user.user_id
    if whose != user.user_id and user.role != "admin":
        raise Problem(403, "not-allowed", "only admins see other users' keys: leave `user_id` out")
    return KeyPage(items=[KeyView.of(key) for key in await found.api_keys.of_user(whose)])


@router.delete("/{key_id}", status_code=204)
async def delete(key_id: UUID, user: LoggedInUser, found: Found) -> Response:
    """Delete a key, for admins also somebody else's; within 5 s it is worth nothing anywhere."""
    if not await found.api_keys.delete(key_id, user_id=None if user.role == "admin" else user.user_id):
        raise not_found()
    found.keys.forget(key_id)
    return Response(status_code=204)


def _scopes(wanted: Sequence[Scope] | None, user: UserUpdated) -> list[Scope]:
    if wanted is None:
        return ["jobs", "admin"] if user.role == "admin" else ["jobs"]
    if user.role != "admin" and FOR_ADMINS.intersection(wanted):
        raise Problem(403, "not-allowed", "only admins have the scopes `admin` and `users`: leave them out")
    return sorted(set(wanted))
