"""A real browser, driven over its DevTools protocol: Chromium without a window, as Debian packages it."""

import asyncio
import itertools
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.waiting import until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Page:
    """One tab. What is clicked and filled is named by CSS selectors, and waited for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)

    async def open(self, url: str) -> None:
        await self._call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """Of JavaScript, in the page."""
        reply = await self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    async def click(self, selector: str) -> None:
        await self._found(selector)
        await self.evaluate(f"document.querySelector({selector!r}).click()")

    async def fill(self, selector: str, text: str) -> None:
        """Replace what stands there, as if typed."""
        await self._found(selector)
        await self.evaluate(f"document.querySelector({selector!r}).focus()")
        await self.evaluate(f"document.querySelector({selector!r}).select()")
        await self._call("Input.insertText", text=text)

    async def text(self, selector: str) -> str:
        """What a person reads there."""
        await self._found(selector)
        return str(await self.evaluate(f"document.querySelector({selector!r}).innerText"))

    async def _found(self, selector: str) -> None:
        async def there() -> Any:
            return await self.evaluate(f"document.querySelector({selector!r}) !== null")

        await until(there, within_s=20)

    async def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:  # events come in between
            message = await self._socket.receive_json(timeout=20)
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """An empty tab; skips where there is no Chromium, but fails there in CI."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no Chromium here: Debian's package chromium has it")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += [f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(  # noqa: ASYNC220 a moment, in a test
        [program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        told = folder / "DevToolsActivePort"
        await until(lambda: told.exists() and "\n" in told.read_text())
        base = f"http://127.0.0.1:{told.read_text().splitlines()[0]}"
        async with aiohttp.ClientSession() as session:
            tabs = await (await session.get(f"{base}/json")).json()
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)
