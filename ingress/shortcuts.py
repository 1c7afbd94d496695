"""The routes that are called most, once more, in front of all others and without FastAPI: it takes half of a request.

Its general way looks through routers, opens two exit stacks, and asks of each argument where it comes from. A shortcut
finds the four that these endpoints take by itself; all that they are described and documented by stays FastAPI's.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match, Route
from starlette.types import Scope

from ingress.services import CostingUser, Found, bearer, costing_user, current_user, services
from ingress.submitting.idempotency import KeyHeader

TAKEN = {"user": CostingUser, "found": Found, "request": Request, "key": KeyHeader, "return": Response}


class Shortcut(Route):
    """To the endpoint of a route that takes what `TAKEN` says."""

    def __init__(self, route: APIRoute) -> None:
        """The same path, methods and bound of the body."""
        endpoint: Any = route.endpoint

        async def handle(request: Request) -> Response:
            user = await costing_user(request, await current_user(request, await bearer(request)))
            found: Response = await endpoint(user, services(request), request, request.headers.get("idempotency-key"))
            return found

        super().__init__(
            route.path, handle, methods=route.methods, include_in_schema=False, max_body_size=route.max_body_size
        )

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Starlette asks; what is not wholly ours is FastAPI's, and all is where dependencies are overridden."""
        if scope["type"] != "http" or scope["path"] != self.path or scope["app"].dependency_overrides:
            return Match.NONE, {}
        match, found = super().matches(scope)
        return (match, {**found, "route": self}) if match is Match.FULL else (Match.NONE, {})


def install_shortcuts(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """To all routes of these that take what `TAKEN` says; call it when all others are there."""
    fitting = [
        route
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and route.endpoint.__annotations__ == TAKEN
    ]
    app.router.routes[:0] = [Shortcut(route) for route in fitting]
