"""The routes that are called most find their arguments themselves: FastAPI's general way takes a fifth of a request."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from ingress.idempotency import KeyHeader
from ingress.services import CostingUser, Found, bearer, costing_user, current_user, services

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
TAKEN = {"user": CostingUser, "found": Found, "request": Request, "key": KeyHeader, "return": Response}


class AskedRoute(APIRoute):
    """For endpoints that take what `TAKEN` says; others are as they would be without it.

    They are described, and behave, as FastAPI would have it; where dependencies are overridden, FastAPI finds them.
    """

    def get_route_handler(self) -> Handler:
        """As FastAPI calls it, when the route is made."""
        general, endpoint = super().get_route_handler(), self.endpoint
        if endpoint.__annotations__ != TAKEN:
            return general

        async def handle(request: Request) -> Response:
            if request.app.dependency_overrides:
                return await general(request)
            user = await costing_user(request, await current_user(request, await bearer(request)))
            found: Response = await endpoint(user, services(request), request, request.headers.get("idempotency-key"))
            return found

        return handle
