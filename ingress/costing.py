"""Routes that cost something, and where whoever calls them stands, also where a call never came to its endpoint.

A body that is too large, too deep, packed or no JSON at all is refused before anybody has asked who sends it, and a key
that lacks a scope before anybody has asked what for. Whose call it was is then looked up for the answer.
"""

from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.types import Scope

from ingress.access.credentials import Access
from ingress.access.standings import Standings
from ingress.http.problems import Problem
from ingress.services import bearer, costing_user
from schemas.events import RateLimit


def costing_routes(routers: Iterable[APIRouter]) -> list[APIRoute]:
    """Those whose endpoint takes a `CostingUser`."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    return [route for route in routes if any(one.call is costing_user for one in _all(route.dependant))]


class CostingCalls:
    """Of the routes of one app."""

    def __init__(self, routers: Iterable[APIRouter], access: Access, standings: Standings) -> None:
        """`routers`: all of the app's."""
        self._routes, self._access, self._standings = costing_routes(routers), access, standings

    async def standing(self, scope: Scope) -> RateLimit | None:
        """Where the caller of a refused call stands; None: it costs nothing, or nobody can tell who calls."""
        method, path = scope["method"], scope["path"]
        if not any(method in (route.methods or ()) and route.path_regex.match(path) for route in self._routes):
            return None
        try:
            session = await self._access.session(await bearer(Request(scope)))
        except Problem:
            return None
        return self._standings.of(session.user)


def _all(dependant: Dependant) -> Iterator[Dependant]:
    for one in dependant.dependencies:
        yield one
        yield from _all(one)
