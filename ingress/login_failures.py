"""Logins that have failed, for admins."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field

from ingress.cancelling import When
from ingress.http.problems import Problem
from ingress.services import Admin, Found
from schemas.request_fields import RequestBody, Text
from sinks.login_failures import LoginFailure, Reason
from sinks.postgres import MAX_PAGE, InvalidCursorError

router = APIRouter(prefix="/admin/login-failures", tags=["users"])
Named = Annotated[Text, Field(max_length=128)]


class LoginFailureView(RequestBody):
    """One try; `user_id` is what was given, whether or not there is such a user."""

    at: datetime
    user_id: str
    address: str
    reason: Reason

    @classmethod
    def of(cls, failure: LoginFailure) -> Self:
        """As admins see it."""
        return cls(**{name: value for name, value in asdict(failure).items() if name in cls.model_fields})


class LoginFailurePage(RequestBody):
    """Some of them, and the cursor of those after them."""

    items: list[LoginFailureView]
    next: str | None


@router.get("")
async def login_failures(
    user: Admin,  # noqa: ARG001 an admin must ask
    found: Found,
    user_id: Named | None = None,
    address: Named | None = None,
    since: Annotated[When | None, Query(alias="from")] = None,
    to: When | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> LoginFailurePage:
    """Every wrong password, newest first, kept for `LOGIN_FAILURES_KEPT_DAYS`; `to` is exclusive.

    Of tries that were refused for their number (`slowed-down`) one a minute is kept, by user and address.
    """
    try:
        failures, after = await found.login_failures.page(
            user_id=user_id, address=address, since=since, to=to, limit=limit, cursor=cursor
        )
    except InvalidCursorError as error:
        raise Problem(400, error.code, error.message) from None
    return LoginFailurePage(items=[LoginFailureView.of(failure) for failure in failures], next=after)
