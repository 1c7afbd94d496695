"""A bad network between clients and a server: one TCP proxy per server, its mode set over HTTP.

Modes: `pass`; `reset`: every connection is reset each 0.2 s; `slow`: 100-1,000 ms and 1 Mbit/s each way; `refuse`:
nothing gets through, and no new connection either; `mute`: requests arrive, replies do not; `cut`: now and then a
request arrives, and the connection is closed before its reply. `POST /<name>/<mode>`; `GET /<name>` tells how often
something was done to a connection. The broker advertises the proxy's address, so clients come back to it.
"""

import argparse
import asyncio
import contextlib
from random import Random

import uvloop
from aiohttp import web

MODES = ("pass", "reset", "slow", "refuse", "mute", "cut")
HOST = "127.0.0.1"
CHUNK = 65_536
RESET_S = 0.2
SLOW_S = (0.1, 1.0)
BYTES_PER_S = 1_000_000 / 8
CUT_SHARE, CUT_AFTER_S = 0.05, 0.05


class Proxy:
    """In front of one server."""

    def __init__(self, listen: int, target: int, random: Random) -> None:
        self._listen, self._target, self._random = listen, target, random
        self._mode = "pass"
        self.acts = 0  # connections aborted, chunks delayed or held back
        self._open: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Listen, and look after the modes that act by time."""
        self._server = await asyncio.start_server(self._serve, HOST, self._listen, backlog=1024)
        self._resetting = asyncio.create_task(self._reset())

    async def stop(self) -> None:
        """Close everything."""
        self._resetting.cancel()
        self._server.close()
        self._abort_all()
        while self._open:
            await asyncio.sleep(0.01)
        await self._server.wait_closed()

    def switch(self, mode: str) -> None:
        """From now on."""
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        if mode == "refuse":
            self._abort_all()

    async def _reset(self) -> None:
        while True:
            await asyncio.sleep(RESET_S)
            if self._mode == "reset":
                self._abort_all()

    def _abort_all(self) -> None:
        self.acts += len(self._open)
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "refuse":
            self.acts += 1
            writer.transport.abort()
            return
        try:
            to_read, to_write = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, to_write}
        self._open |= both
        pumps = [
            asyncio.ensure_future(self._pump(reader, to_write, both, replies=False)),
            asyncio.ensure_future(self._pump(to_read, writer, both, replies=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for end in both:
                end.transport.abort()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._open -= both

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, both: set[asyncio.StreamWriter],
        *, replies: bool,
    ) -> None:  # fmt: skip
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                if self._mode == "slow":
                    self.acts += 1
                    await asyncio.sleep(self._random.uniform(*SLOW_S) + len(chunk) / BYTES_PER_S)
                while self._mode == "mute" and replies:
                    self.acts += 1
                    await self._changed.wait()
                writer.write(chunk)
                await writer.drain()
                if self._mode == "cut" and not replies and self._random.random() < CUT_SHARE:
                    self.acts += 1
                    for end in both:  # no byte of the reply gets through while the server works
                        if end is not writer:
                            end.transport.abort()
                    await asyncio.sleep(CUT_AFTER_S)
                    return


async def _main(routes: list[str], seed: int) -> None:
    proxies: dict[str, Proxy] = {}
    for route in routes:
        name, listen, target = route.split(":")
        proxies[name] = Proxy(int(listen), int(target), Random(f"proxy/{seed}/{name}"))
        await proxies[name].start()

    async def set_mode(request: web.Request) -> web.Response:
        if request.match_info["mode"] not in MODES:
            raise web.HTTPNotFound
        proxies[request.match_info["name"]].switch(request.match_info["mode"])
        return web.Response()

    async def acts(request: web.Request) -> web.Response:
        return web.Response(text=str(proxies[request.match_info["name"]].acts))

    app = web.Application()
    app.router.add_get("/{name}", acts)
    app.router.add_post("/{name}/{mode}", set_mode)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    print(f"http://{HOST}:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("routes", nargs="+", help="name:listen:target")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    uvloop.run(_main(given.routes, given.seed))
