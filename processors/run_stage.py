"""Runs one stage over one event: quick retries, a deadline, and a result whatever happens."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from time import monotonic

from processors.errors import PermanentError, RetryableError
from processors.stage import AsyncStage, DeadLetter, Emit, PlainStage, StageResult
from schemas.events import Attempt, Event, Job, JobError, JobFinished

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 10.0  # a longer wait is not one to hold an event in place for
UNEXPECTED = "unexpected-error"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often a stage tries.

    Attributes:
        max_retries: Tries after the first.
        timeout_s: Of all tries together; the work is cut, and the job ends `timeout`.
        expires_in_s: What is left until the job expires; at zero or below it is not begun.
    """

    max_retries: int
    timeout_s: float
    expires_in_s: float


async def run_stage(
    stage: AsyncStage,
    event: Event,
    *,
    job: Job,
    target: str,
    limits: Limits,
    now: Callable[[], datetime],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    random: Random | None = None,
    on_retry: Callable[[int, str], Awaitable[None]] | None = None,
    name: str = "",
) -> StageResult:
    """What the stage decided. Raises nothing but cancellation: a bug in a stage is a dead letter, too.

    Args:
        stage: Called as `stage(event, now=...)`, anew for each try.
        event: Its input.
        job: Whose work it is; ends with `timeout` or `expired` where time is up.
        target: What is being tried, as it stands in `attempts`: a provider's name.
        limits: How long and how often.
        now: The clock.
        sleep: Between tries.
        random: For the jitter.
        on_retry: Told before each wait: the number of the try that failed, and its code.
        name: The stage's, for the log.
    """
    if limits.expires_in_s <= 0:
        return _ended(job, "expired", "the job waited longer than it was good for; send it again", now())
    random = random or Random()  # noqa: S311 jitter is no secret
    attempts: list[Attempt] = []
    try:
        async with asyncio.timeout(min(limits.timeout_s, limits.expires_in_s)):
            while True:
                began = monotonic()
                try:
                    result = await stage(event, now=now())
                except RetryableError as error:
                    attempts.append(_attempt(target, began, error.code))
                    wait = _backoff(len(attempts), error.retry_after_s, random)
                    if len(attempts) > limits.max_retries or wait > MAX_BACKOFF_S:
                        return DeadLetter(error.code, error.message, error.retry_after_s, tuple(attempts))
                    if on_retry is not None:
                        await on_retry(len(attempts), error.code)
                    await sleep(wait)
                except PermanentError as error:
                    attempts.append(_attempt(target, began, error.code))
                    return DeadLetter(error.code, error.message, None, tuple(attempts))
                else:
                    code = result.code if isinstance(result, DeadLetter) else None
                    attempts.append(_attempt(target, began, code))
                    return _with_attempts(result, tuple(attempts))
    except TimeoutError:
        attempts.append(_attempt(target, began, "timeout"))
        message = "there was no answer in time and the work was cut; allow more with `timeout` (at most 120 s)"
        return _ended(job, "timeout", message, now(), tuple(attempts))
    except Exception:
        logger.exception("a stage failed", extra={"job_id": str(job.job_id), "stage": name, "target": target})
        return DeadLetter(UNEXPECTED, "a bug in the stage; its traceback is in the worker's log", None, tuple(attempts))


def run_plain_stage(stage: PlainStage, event: Event, *, name: str = "", **context: object) -> StageResult:
    """The same for a gate stage, which tries once and does not wait."""
    try:
        return stage(event, **context)
    except Exception:
        job: Job | None = getattr(event, "job", None)
        told = {"job_id": str(job.job_id) if job else None, "stage": name}
        logger.exception("a stage failed", extra=told)
        return DeadLetter(UNEXPECTED, "a bug in the stage; its traceback is in the worker's log")


def _backoff(attempt: int, retry_after_s: float | None, random: Random) -> float:
    backoff: float = FIRST_BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
    return max(backoff, retry_after_s or 0.0)


def _attempt(target: str, began: float, code: str | None) -> Attempt:
    return Attempt(provider=target, code=code, ms=round((monotonic() - began) * 1000))


def _with_attempts(result: StageResult, attempts: tuple[Attempt, ...]) -> StageResult:
    if isinstance(result, DeadLetter):
        return DeadLetter(result.code, result.reason, result.retry_after_s, attempts)
    if isinstance(result, Emit):
        return Emit(
            [event.with_attempts(attempts) if isinstance(event, JobFinished) else event for event in result.events]
        )
    return result


def _ended(job: Job, code: str, message: str, at: datetime, attempts: tuple[Attempt, ...] = ()) -> StageResult:
    finished = JobFinished.failed(job, error=JobError(code=code, message=message), at=at)
    return Emit((finished.with_attempts(attempts),))
