"""Runs one stage over one event: quick retries, a deadline, and a result whatever happens. See also `retries`."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from time import monotonic

from processors.completion.fall_over import BREAKER_OPEN, TIMEOUT, Onward
from processors.errors import PermanentError, RetryableError
from processors.retries import LONG_FIRST_S, MAX_BACKOFF_S, latest, long_wait_s, quick_wait_s
from processors.stage import AsyncStage, DeadLetter, Emit, Hop, Later, PlainStage, StageResult
from schemas.events import Attempt, Event, Job, JobError, JobFinished

logger = logging.getLogger(__name__)

UNEXPECTED = "unexpected-error"
LONG_KINDS = ("document", "training")  # whose time is that of their job
JITTER = Random()  # noqa: S311 it is no secret; one for all, for a new one costs more than the rest of a try


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often a stage tries.

    Attributes:
        max_retries: Quick tries after the first, in each round.
        timeout_s: Of a round; the work is cut, and the job ends `timeout`. Long waits are not counted.
        expires_in_s: What is left until the job expires; at zero or below it is not begun.
        long_first_s: The first long wait.
    """

    max_retries: int
    timeout_s: float
    expires_in_s: float
    long_first_s: float = LONG_FIRST_S


@dataclass(frozen=True, slots=True)
class Past:
    """What was tried of an event before: how often it was put off, and the tries until then."""

    retry: int = 0
    attempts: tuple[Attempt, ...] = ()


async def run_stage(
    stage: AsyncStage,
    event: Event,
    *,
    job: Job,
    target: str,
    limits: Limits,
    past: Past = Past(),
    onward: Onward | None = None,
    turn: Callable[[float], Awaitable[bool]] | None = None,
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
        past: What was tried before; counted into `attempts`.
        onward: Who is asked where this one fails.
        turn: Awaited before each further try; False: it may not be made within so many seconds.
        now: The clock.
        sleep: Between tries.
        random: For the jitter.
        on_retry: Told before each wait: the number of the try that failed, and its code.
        name: The stage's, for the log.
    """
    if limits.expires_in_s <= 0:
        message = "the job waited longer than it was good for; send it again"
        return _ended(job, "expired", message, now(), past.attempts)
    random = random or JITTER
    started = monotonic()
    time_s = min(limits.timeout_s, limits.expires_in_s)
    own_s = time_s * onward.time_share if onward is not None else time_s  # the rest is for the next one
    attempts: list[Attempt] = []
    try:
        async with asyncio.timeout(time_s):
            while True:
                began = monotonic()
                try:
                    result = await stage(event, now=now())
                except RetryableError as error:
                    attempts.append(_attempt(target, began, error.code))
                    tries = len(attempts)
                    if tries <= limits.max_retries and not _is_not_here(error, onward):
                        wait = quick_wait_s(tries, retry_after_s=error.retry_after_s, random=random)
                        # One that would end after the round's time would end the job as `timeout`, which it was not.
                        if wait <= MAX_BACKOFF_S and wait < own_s - (monotonic() - started):
                            if on_retry is not None:
                                await on_retry(len(past.attempts) + tries, error.code)
                            await sleep(wait)
                            left_s = own_s - (monotonic() - started)
                            if turn is None or await turn(min(MAX_BACKOFF_S, left_s)):
                                continue
                    spent = monotonic() - started
                    hop = _elsewhere(onward, error.code, _all(past, attempts), left_s=time_s - spent)
                    return hop or _not_soon(error, limits, past, tuple(attempts), spent, random)
                except PermanentError as error:
                    attempts.append(_attempt(target, began, error.code))
                    left_s = time_s - (monotonic() - started)
                    hop = _elsewhere(onward, error.code, _all(past, attempts), left_s=left_s)
                    return hop or DeadLetter(error.code, error.message, None, _all(past, attempts))
                else:
                    code = result.code if isinstance(result, DeadLetter) else None
                    attempts.append(_attempt(target, began, code))
                    return _with_attempts(result, _all(past, attempts))
    except TimeoutError:
        attempts.append(_attempt(target, began, "timeout"))
        most_s = 86_400 if job.kind in LONG_KINDS else 120
        message = f"there was no answer in time and the work was cut; allow more with `timeout` (at most {most_s} s)"
        return _ended(job, "timeout", message, now(), _all(past, attempts))
    except Exception:  # a bug in a stage ends its job, not the process
        logger.exception("a stage failed", extra={"job_id": str(job.job_id), "stage": name, "target": target})
        reason = "a bug in the stage; its traceback is in the worker's log"
        return DeadLetter(UNEXPECTED, reason, None, _all(past, attempts))


def run_plain_stage(stage: PlainStage, event: Event, *, name: str = "", **context: object) -> StageResult:
    """The same for a gate stage, which tries once and does not wait."""
    try:
        return stage(event, **context)
    except Exception:  # as above
        job: Job | None = getattr(event, "job", None)
        told = {"job_id": str(job.job_id) if job else None, "stage": name}
        logger.exception("a stage failed", extra=told)
        return DeadLetter(UNEXPECTED, "a bug in the stage; its traceback is in the worker's log")


def _is_not_here(error: RetryableError, onward: Onward | None) -> bool:
    """True if to try the same provider again soon is of no use, or another one does better."""
    if error.code == BREAKER_OPEN:
        return True
    is_told = error.retry_after_s is not None or error.code == TIMEOUT  # that it will not be well now
    return is_told and onward is not None and onward.takes(error.code)


def _elsewhere(onward: Onward | None, code: str, attempts: tuple[Attempt, ...], *, left_s: float) -> Hop | None:
    return onward.hop(code, attempts, left_s=left_s) if onward is not None else None


def _not_soon(
    error: RetryableError, limits: Limits, past: Past, attempts: tuple[Attempt, ...], spent_s: float, random: Random
) -> Later | DeadLetter:
    """Quick tries have not helped: another round later, if it would still begin in the job's time."""
    wait = long_wait_s(past.retry, first_s=limits.long_first_s, retry_after_s=error.retry_after_s, random=random)
    if wait < limits.expires_in_s - spent_s:
        return Later(error.code, error.message, wait, _all(past, attempts))
    return DeadLetter(error.code, error.message, error.retry_after_s, _all(past, attempts))


def _all(past: Past, attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    return latest((*past.attempts, *attempts))


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
