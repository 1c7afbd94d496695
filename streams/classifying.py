"""Asks the operator's classifier before a batch is sanitized, and never holds the gate up for it.

Every prompt is asked about that our own rules do not refuse: what they miss is what a model is for. A batch waits for
no longer than `BATCH_TIMEOUTS` times the timeout of one call; a classifier that fails `FAILURES` times in a row is left
alone for `LEFT_ALONE_S`. What could not be asked is counted, and passes or is refused as the operator has said.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from time import monotonic
from uuid import UUID

from processors.errors import PermanentError, RetryableError
from processors.filter.prompt_policy import PromptPolicy
from processors.loops import Loop
from processors.ports import PromptClassifier
from processors.sanitize_prompt import texts_of
from schemas.envelope import Envelope
from schemas.events import JobAccepted
from schemas.requests import ChatRequest
from streams import metrics
from streams.batch import Batch

logger = logging.getLogger(__name__)

AT_ONCE = 32
BATCH_TIMEOUTS = 2.0
FAILURES, LEFT_ALONE_S = 5, 10.0
MAX_SCORES = 20_000  # of batches that were prepared and lost before they were handled


class Classifying:
    """The scores of the jobs in hand."""

    def __init__(
        self, classifier: PromptClassifier, policy: Callable[[], PromptPolicy], *, timeout_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:  # fmt: skip
        """`policy`: the rules as they are now; `timeout_s`: of one call."""
        self._classifier, self._policy, self._clock = classifier, policy, clock
        self._batch_s = timeout_s * BATCH_TIMEOUTS
        self._scores: OrderedDict[UUID, float] = OrderedDict()
        self._calls = asyncio.Semaphore(AT_ONCE)
        self._failures, self._not_before = 0, 0.0
        self._loop = Loop("asking the prompt classifier")

    def score_of(self, job_id: UUID) -> float | None:
        """Of a job that was prepared; None where it could not be asked about."""
        return self._scores.get(job_id)

    async def prepare(self, batch: Batch) -> None:
        """Ask about each of its prompts. Returns in time, whatever the classifier does."""
        await self.ask([envelope for envelope in batch.envelopes if isinstance(envelope, Envelope)])

    async def ask(self, envelopes: Sequence[Envelope[JobAccepted]]) -> None:
        """See `prepare`."""
        wanted: dict[UUID, str] = {}
        policy = self._policy()
        for envelope in envelopes:
            event = envelope.payload
            if isinstance(event.request, ChatRequest):
                text = texts_of(event.request)
                if (verdict := policy.judge(text)) is None or verdict.action != "refuse":
                    wanted[event.job.job_id] = text[: policy.max_prompt_chars]
        tasks = [asyncio.create_task(self._ask(job_id, text)) for job_id, text in wanted.items()]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._batch_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.gather(*late, return_exceptions=True)
        missing = sum(job_id not in self._scores for job_id in wanted)
        metrics.CLASSIFIED.labels("unknown").inc(missing)
        metrics.CLASSIFIED.labels("scored").inc(len(wanted) - missing)
        while len(self._scores) > MAX_SCORES:
            self._scores.popitem(last=False)

    async def _ask(self, job_id: UUID, text: str) -> None:
        async with self._calls:
            if self._clock() < self._not_before:
                return
            try:
                self._scores[job_id] = await self._classifier.score(text)
                self._failures = 0
            except (RetryableError, PermanentError) as error:
                self._failed(error.code)
            except Exception as bug:  # a prompt that could not be asked about is counted as one, whatever the reason
                self._loop.met(bug)
                self._failed("unexpected-error")

    def _failed(self, code: str) -> None:
        self._failures += 1
        if self._failures >= FAILURES:
            self._failures, self._not_before = 0, self._clock() + LEFT_ALONE_S
            logger.warning("the prompt classifier is left alone for %.0f s: %s", LEFT_ALONE_S, code)
