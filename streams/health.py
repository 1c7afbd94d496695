"""A worker's HTTP side: `/livez`, `/readyz`, `/metrics`."""

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


class HealthServer:
    """Tells the supervisor and Prometheus how the worker is."""

    def __init__(
        self, *, problems: Callable[[], Mapping[str, str]], before_scrape: Callable[[], None],
        warnings: Callable[[], Mapping[str, str]] = dict,
    ) -> None:  # fmt: skip
        """`problems`: what keeps the worker from being ready, by part; `warnings`: what does not, and is wrong all the
        same; `before_scrape`: sets the gauges.
        """
        self._warnings = warnings
        self._problems, self._before_scrape = problems, before_scrape
        self._runner: web.AppRunner | None = None
        self.address: str | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen there, on a free port where it is 0.

        Raises:
            OSError: The port is taken.
        """
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.address = f"http://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """May be called before `start`."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, request: web.Request) -> web.Response:  # noqa: ARG002 aiohttp's signature
        return web.json_response({"status": "alive"})

    async def _readyz(self, request: web.Request) -> web.Response:  # noqa: ARG002 as above
        problems = self._problems()
        status = 503 if problems else 200
        body = {"ready": not problems, "problems": dict(problems), "warnings": dict(self._warnings())}
        return web.json_response(body, status=status)

    async def _metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002 as above
        self._before_scrape()
        return web.Response(body=generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})
