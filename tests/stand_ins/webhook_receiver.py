"""Takes webhooks and remembers them; `failures`: how many are answered 500 first."""

from collections import defaultdict
from typing import Self

from aiohttp import web


class WebhookReceiver:
    """`received`: webhook-id -> the bodies of all its deliveries."""

    def __init__(self, *, failures: int = 0) -> None:
        self.failures, self.received = failures, defaultdict[str, list[bytes]](list)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.received[request.headers["webhook-id"]].append(await request.read())
        if self.failures:
            self.failures -= 1
            return web.Response(status=500)
        return web.Response()
