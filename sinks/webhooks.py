"""Sends the webhooks that are due. Source of the schedule: Standard Webhooks 1.0, "Reliability"."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from random import Random

import httpx

from processors.errors import RetryableError
from processors.loops import Loop, end
from sinks.egress import EgressClient, EgressRefusedError, EgressReply
from sinks.egress_targets import NOTHING_ELSE, Allowed
from sinks.pool import Pool
from sinks.webhook_signing import WebhookSecrets, signed_headers
from sinks.webhook_store import LeasedWebhook, WebhookStore

logger = logging.getLogger(__name__)

# Seconds before each attempt: 0 s, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
SCHEDULE_S = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER = 0.1
MAX_RETRY_AFTER_S = 86_400.0
AT_ONCE, AT_ONCE_PER_HOST = 64, 4
POLL_S, MAX_BACKOFF_S = 1.0, 5.0
GONE = 410


class WebhookSender:
    """Runs beside the sink; several may run at once, on leases."""

    def __init__(
        self,
        pool: Pool,
        secrets: WebhookSecrets,
        *,
        allow_private: bool,
        timeout_s: float,
        allowed: Allowed = NOTHING_ELSE,
        now: Callable[[], datetime] | None = None,
        random: Random | None = None,
    ) -> None:
        """What is sent, and how.

        Args:
            pool: Where they wait.
            secrets: What they are signed with.
            allow_private: As `EgressClient` takes it, like the next two.
            timeout_s: Likewise.
            allowed: Likewise.
            now: Says what is due; None: Postgres's clock, which all senders have in common.
            random: For the jitter.
        """
        self._store, self._secrets = WebhookStore(pool), secrets
        self._says_what_is_due, self._now = now, now or (lambda: datetime.now(UTC))
        self._client = EgressClient(allow_private=allow_private, allowed=allowed, timeout_s=timeout_s)
        self._random = random or Random()  # noqa: S311 jitter is no secret
        self._woken = asyncio.Event()
        self._by_host: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts = Loop("attempting webhooks")

    def wake(self) -> None:
        """Something is due now."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled; outlives a Postgres that is away."""
        backoff, loop = POLL_S, Loop("sending webhooks", max_wait_s=MAX_BACKOFF_S)
        while True:
            try:
                begun = await self.send_due()
                backoff = POLL_S
                loop.went_well()
            except RetryableError as error:
                begun = 0
                backoff = min(MAX_BACKOFF_S, backoff * 2)
                logger.warning("webhooks wait: %s", error.message)
            except Exception as bug:
                begun, backoff = 0, loop.met(bug)
            if not begun:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff):  # wait_for may lose the stop's cancellation (Python 3.11)
                        await self._woken.wait()
                self._woken.clear()

    async def send_due(self) -> int:
        """Begin what is due and has room; the number of attempts begun."""
        room = AT_ONCE - len(self._tasks)
        if room <= 0:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            return 0
        now = self._now() if self._says_what_is_due else None
        ours = await self._store.lease(room, now=now, per_host=AT_ONCE_PER_HOST, busy=self._by_host)
        for leased in ours:
            self._by_host[leased.host] += 1
            task = asyncio.create_task(self._attempt(leased))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(ours)

    async def settle(self) -> None:
        """Wait until no attempt is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _attempt(self, leased: LeasedWebhook) -> None:
        try:
            await self._post_and_record(leased)
        except RetryableError as error:  # the lease runs out, and it is sent again with the same id and body
            logger.warning("a webhook's attempt could not be recorded: %s", error.message)
        except Exception as bug:  # likewise; nobody awaits this task, so nobody else would say so
            self._attempts.met(bug)
        else:
            self._attempts.went_well()
        finally:
            self._by_host[leased.host] -= 1
            if not self._by_host[leased.host]:
                del self._by_host[leased.host]
            self.wake()

    async def _post_and_record(self, leased: LeasedWebhook) -> None:
        at = leased.at  # which is signed: receivers refuse what is minutes old by it, or yet to come
        body = leased.body.encode()
        keys = await self._secrets.signing_keys(leased.user_id, at)
        reply: EgressReply | None = None
        error: str | None = None
        refused = False
        try:
            reply = await self._client.post(
                leased.url, body, signed_headers(leased.webhook_id, body, keys, now=at)
            )  # fmt: skip
        except EgressRefusedError as why:
            error, refused = f"refused: {why}", True
        except TimeoutError:
            error = "no answer in time"
        except (httpx.HTTPError, OSError) as why:
            bad = "CERTIFICATE_VERIFY_FAILED" in str(why)
            error = "not delivered: " + ("its certificate is not valid" if bad else type(why).__name__)
        except Exception as bug:  # counted as an attempt: unrecorded, it would come back with every lease for ever
            logger.exception("a bug in delivering %s", leased.webhook_id)
            error = f"not delivered: {type(bug).__name__}"
        status = reply.status_code if reply else None
        if reply is not None and 200 <= reply.status_code < 300:
            await self._store.record(leased, at=at, status_code=status, error=None, state="delivered", next_at=None)
            return
        if reply is not None:
            error = f"answered {status}" + (" (redirects are not followed)" if 300 <= reply.status_code < 400 else "")
        next_at = None if refused or status == GONE else self._next(leased.attempt + 1, reply)
        state = "due" if next_at else "given-up"
        clock = None if self._says_what_is_due else self._now()
        await self._store.record(
            leased, at=at, status_code=status, error=error, state=state, next_at=next_at, clock=clock
        )

    def _next(self, attempts: int, reply: EgressReply | None) -> datetime | None:
        """When the next one is due, if there is one."""
        if attempts >= len(SCHEDULE_S):
            return None
        wait = SCHEDULE_S[attempts] * (1 + self._random.uniform(-JITTER, JITTER))
        return self._now() + timedelta(seconds=max(wait, self._asked_to_wait(reply)))

    def _asked_to_wait(self, reply: EgressReply | None) -> float:
        said = reply.headers.get("retry-after") if reply else None
        if said is None:
            return 0.0
        if said.isascii() and said.isdigit():
            return min(float(said), MAX_RETRY_AFTER_S)
        with contextlib.suppress(ValueError, TypeError):
            return min(max(0.0, (parsedate_to_datetime(said) - self._now()).total_seconds()), MAX_RETRY_AFTER_S)
        return 0.0

    async def close(self) -> None:
        """Let what is under way finish, bounded; what does not is sent again after its lease."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
        await asyncio.gather(*map(end, list(self._tasks)), return_exceptions=True)
        await self._client.close()
