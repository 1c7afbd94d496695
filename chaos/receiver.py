"""The users' webhook receiver: verifies, writes down what it got, and answers as it was told to.

`POST /hook/<user>/<key>`; `POST /mode/<mode>`: `ok`; `500`, `302`, `close`: so for the first attempt of each webhook,
and well from then on; `slow`: after 3 s; `410`: gone.
"""

import argparse
import asyncio
import base64
from collections import Counter
from hashlib import sha256
from pathlib import Path

import orjson
import uvloop
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from chaos.ledger import Ledger
from chaos.outcome import outcome_hash
from schemas.ids import derive_key

MODES = ("ok", "500", "302", "close", "slow", "410")
SLOW_S = 3.0


class Receiver:
    """`master`: the deployment's secret, from which each user's is derived as `GET /webhook-secret` tells it."""

    def __init__(self, ledger: Ledger, master: str) -> None:
        self._ledger, self._master = ledger, master
        self._mode = "ok"
        self._seen: Counter[str] = Counter()
        self._verifiers: dict[str, Webhook] = {}

    async def hook(self, request: web.Request) -> web.Response:
        """One attempt."""
        body = await request.read()
        webhook_id = request.headers.get("webhook-id", "")
        self._seen[webhook_id] += 1
        first = self._seen[webhook_id] == 1
        mode = self._mode
        said = {"500": 500, "302": 302, "close": 0, "410": 410}.get(mode, 204) if first or mode == "410" else 204
        if mode == "slow":
            await asyncio.sleep(SLOW_S)
        told = orjson.loads(body)["data"]
        error = told.get("error") or {}
        whole = not told.get("truncated")
        self._ledger.write(
            "receipt", id=webhook_id, job=told["job_id"], valid=self._is_valid(request, body), said=said,
            body=sha256(body).hexdigest()[:16],
            outcome=outcome_hash(told["status"], told.get("result"), error.get("code")) if whole else None,
        )  # fmt: skip
        if said == 0 and request.transport is not None:
            request.transport.abort()
        headers = {"location": "/followed"} if said == 302 else None
        return web.Response(status=said or 204, headers=headers)

    async def followed(self, request: web.Request) -> web.Response:
        """Nobody should come here: redirects are not followed."""
        self._ledger.write("receipt", id=request.headers.get("webhook-id", ""), job=None, valid=False, said=0,
                           body="followed", outcome=None)  # fmt: skip
        return web.Response()

    async def mode(self, request: web.Request) -> web.Response:
        """Answer so from now on."""
        self._mode = request.match_info["mode"]
        return web.Response()

    def _is_valid(self, request: web.Request, body: bytes) -> bool:
        user = request.match_info["user"]
        verifier = self._verifiers.get(user)
        if verifier is None:
            secret = base64.b64encode(derive_key(self._master, f"webhook/1/{user}")).decode()
            verifier = self._verifiers[user] = Webhook("whsec_" + secret)
        try:
            verifier.verify(body, dict(request.headers))
        except WebhookVerificationError:
            return False
        return True


async def _main(file: Path, master: str) -> None:
    receiver = Receiver(Ledger(file), master)
    app = web.Application()
    app.router.add_post("/hook/{user}/{key}", receiver.hook)
    app.router.add_route("*", "/followed", receiver.followed)
    app.router.add_post("/mode/{mode}", receiver.mode)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
    await site.start()
    port = runner.addresses[0][1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--master", required=True)
    given = parser.parse_args()
    uvloop.run(_main(given.ledger, given.master))
