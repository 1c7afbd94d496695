"""The clients: jobs with unique prompts through REST and straight to the topic, at a bounded rate.

Each intent is in the ledger before anything is sent, and each answer after. The clients are those of users who try:
one request, and where the ingress knows idempotency keys the same one again while its outcome is unknown.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from chaos.ledger import Ledger
from chaos.outcome import outcome_hash
from schemas.envelope import Attributes
from schemas.ids import direct_job_id

SOURCE = "https://chaos.example/load"
MAX_OPEN = 400  # requests under way
SYNC, DIRECT, HOOKED, SLOW, CANCELLED = 0.08, 0.2, 0.15, 0.03, 0.02  # shares
SLOW_S = (2.0, 5.0)
CANCEL_AFTER_S = 1.0  # at most; half of these jobs are slow ones
REQUEST_TIMEOUT_S = 45.0
KEYED_TRIES = 6
TICK_S = 0.02


@dataclass
class Target:
    """Where the load goes. `ingresses`: addresses, which the nemesis may add to; `tokens`: user -> bearer."""

    ingresses: list[str]
    bootstrap: str
    topic: str
    receiver: str
    tokens: dict[str, str]
    keyed: bool = False


@dataclass(frozen=True)
class Wanted:
    """How a job is to end. `code`: of its error and its dead letter, None: completed; `once`: no call is repeated."""

    code: str | None = None
    once: bool = False


@dataclass
class Load:
    """Sends until it is stopped; `rate` per second."""

    target: Target
    ledger: Ledger
    seed: int
    rate: float
    acked: int = 0
    sent: int = 0
    prefix: str = "job"
    slow_share: float = SLOW
    _open: set["asyncio.Task[None]"] = field(default_factory=set)

    async def __aenter__(self) -> "Load":
        self._random = Random(f"load/{self.seed}")
        connector = aiohttp.TCPConnector(limit=MAX_OPEN, force_close=False)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S), trust_env=False
        )
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._connected = asyncio.Event()
        await self.connect()
        return self

    async def connect(self) -> None:
        """Be one who writes to topics; a new one each time."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.target.bootstrap, acks="all", enable_idempotence=True, request_timeout_ms=20_000
        )
        await self._producer.start()
        self._connected.set()

    async def disconnect(self) -> None:
        """Until `connect`: what is to be written waits. Called while there are brokers.

        Who writes with an id of a cluster that is gone may have one that another has in the new cluster, which would
        take the one's records for those of the other.
        """
        self._connected.clear()
        await asyncio.wait_for(self._producer.stop(), 20)

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Nothing new is sent, and nothing is under way."""
        self._goes_on.clear()
        try:
            while self._open:
                await asyncio.wait(self._open)
            yield
        finally:
            self._goes_on.set()

    async def __aexit__(self, *_: object) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._session.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._producer.stop(), 20)

    async def run(self, stop: asyncio.Event) -> None:
        """Send; returns when no answer is waited for any more."""
        began, due = time.monotonic(), 0.0
        while not stop.is_set():
            due = min(due + self.rate * TICK_S, self.rate)  # what an outage held up is not made good at once
            while due >= 1 and len(self._open) < MAX_OPEN:
                due -= 1
                self.send()
            began += TICK_S
            if not self._goes_on.is_set():
                await self._goes_on.wait()
                began = time.monotonic()
            await asyncio.sleep(max(0.001, began - time.monotonic()))
        while self._open:
            await asyncio.wait(self._open)

    def burst(self, count: int, *, delay_s: float) -> None:
        """So many more at once, whose calls take so long."""
        for _ in range(count):
            self.send(delay_s=delay_s, via="rest")

    def send(
        self, *, delay_s: float | None = None, via: str | None = None, timeout_s: float | None = None, mark: str = "",
        wanted: Wanted | None = None,
    ) -> str:  # fmt: skip
        """One job; what is not given is drawn. `mark`: more of its prompt. Returns its key."""
        random = self._random
        self.sent += 1
        key = f"{self.prefix}-{self.seed}-{self.sent}"
        user = random.choice(list(self.target.tokens))
        drawn = random.random()
        via = via or ("sync" if drawn < SYNC else "direct" if drawn < SYNC + DIRECT else "rest")
        if delay_s is None and random.random() < self.slow_share:
            delay_s = round(random.uniform(*SLOW_S), 1)
        cancelled = wanted is None and via == "rest" and random.random() < CANCELLED
        if cancelled and delay_s is None and random.random() < 0.5:
            delay_s = round(random.uniform(*SLOW_S), 1)
        hooked = via != "sync" and random.random() < HOOKED
        prompt = f"[{key}] chaos{f' [delay={delay_s}]' if delay_s else ''}{mark}"
        body: dict[str, Any] = {"prompt": prompt}
        if timeout_s is not None:
            body["timeout"] = timeout_s
        callback = f"{self.target.receiver}/hook/{user}/{key}" if hooked else None
        self.ledger.write("intent", key=key, user=user, via=via, hook=hooked)
        if wanted is not None:
            self.ledger.write("wanted", key=key, code=wanted.code, once=wanted.once)
        ask = self._direct(key, user, body, callback) if via == "direct" else self._rest(
            key, user, body | ({"callback_url": callback} if callback else {}), sync=via == "sync",
            cancel_after_s=random.uniform(0, CANCEL_AFTER_S) if cancelled else None,
        )  # fmt: skip
        task = asyncio.create_task(ask)
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return key

    def _answered(self, key: str, outcome: str, job: str | None, **more: Any) -> None:
        self.acked += outcome == "acked"
        self.ledger.write("answer", key=key, outcome=outcome, job=job, **more)

    # --- REST ---

    async def _rest(
        self, key: str, user: str, body: dict[str, Any], *, sync: bool, cancel_after_s: float | None
    ) -> None:  # fmt: skip
        path = "/chat/" if sync else "/chat/async"
        for attempt in range(KEYED_TRIES if self.target.keyed else 1):
            outcome, job, more = await self._post(path, user, body, key)
            self._answered(key, outcome, job, **more)
            if outcome == "acked":
                if job is not None and cancel_after_s is not None:
                    await asyncio.sleep(cancel_after_s)
                    await self._cancel(key, user, job)
                return
            await asyncio.sleep(0.5 * (attempt + 1) if self.target.keyed else 0)

    async def _cancel(self, key: str, user: str, job: str) -> None:
        """Once; what was said, if anything was."""
        base = self._random.choice(self.target.ingresses)
        headers = {"authorization": f"Bearer {self.target.tokens[user]}"}
        self.ledger.write("cancel", key=key, job=job, said=None)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
            async with self._session.post(f"{base}/jobs/{job}/cancel", headers=headers) as reply:
                self.ledger.write("cancel", key=key, job=job, said=json.loads(await reply.read()).get("status"))

    async def _post(
        self, path: str, user: str, body: dict[str, Any], key: str
    ) -> tuple[str, str | None, dict[str, Any]]:
        base = self._random.choice(self.target.ingresses)
        headers = {"authorization": f"Bearer {self.target.tokens[user]}"}
        if self.target.keyed:
            headers["idempotency-key"] = key
        try:
            async with self._session.post(base + path, json=body, headers=headers) as reply:
                return classify(reply.status, await reply.read(), sync=path == "/chat/")
        except aiohttp.ClientConnectorError:
            return "refused", None, {"status": 0}  # nobody listens: nothing was sent
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return "unknown", None, {"status": 0, "why": type(error).__name__}

    # --- straight to the topic ---

    async def _direct(self, key: str, user: str, body: dict[str, Any], callback: str | None) -> None:
        value = {"user_id": user, "kind": "chat", "request": body} | ({"callback_url": callback} if callback else {})
        await self.publish(key, user, json.dumps(value).encode(), copies=1)

    async def publish(self, key: str, user: str, value: bytes, *, copies: int) -> None:
        """The same event so many times at once: one job all the same."""
        job = str(direct_job_id(SOURCE, user, key))
        headers = Attributes(key, SOURCE, "job-requested").headers()
        acked = await asyncio.gather(*(self._publish(user, value, headers) for _ in range(copies)))
        self._answered(key, "acked" if any(acked) else "unknown", job)

    async def _publish(self, user: str, value: bytes, headers: Any) -> bool:
        for _ in range(10):
            await self._connected.wait()
            try:
                await self._producer.send_and_wait(self.target.topic, value, key=user.encode(), headers=headers)
            except KafkaError:
                await asyncio.sleep(0.5)
            else:
                return True
        return False


def classify(status: int, content: bytes, *, sync: bool) -> tuple[str, str | None, dict[str, Any]]:
    """Jepsen's three outcomes, the job's id if it is told, and what else there is to note."""
    try:
        told = json.loads(content)
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    code = told.get("code")
    job = told.get("job_id") or (told.get("meta") or {}).get("job_id")
    more: dict[str, Any] = {"status": status} | ({"code": code} if code else {})
    if code == "outcome-unknown":
        return "unknown", job, more
    if job is None:
        return ("refused" if status < 500 or status == 503 else "unknown"), None, more
    if sync and status == 200:
        more["seen"] = outcome_hash("completed", told, None)
    elif sync and code is not None and status != 504:  # which may say only that the waiting was over
        more["seen"] = outcome_hash("error", None, code)
    return "acked", job, more
