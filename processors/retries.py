"""When a failed try is made again: which failures may pass, and how long each wait is.

| what happened | is | quick tries, in place | long waits, as a due row |
|---|---|---|---|
| unreachable, connection broken off | RetryableError `provider-unreachable` | yes | yes |
| 408, 409, 429, 5xx | RetryableError `provider-http-<status>` | unless it asked to wait over 10 s | yes |
| any other status, a garbled reply | PermanentError | no | no |
| no answer within the request's `timeout` | outcome `timeout` | no | no |
| the job's time is over | outcome `expired` | no | no |
| a bug | dead letter `unexpected-error` | no | no |

An adapter says which it is by the error that it raises (`is_passing_status`); `run_stage` does the rest. Nobody is
asked earlier than they said (`Retry-After`), and no wait is begun that would end after the job's time.
"""

from random import Random

from schemas.events import Attempt

PASSING_STATUS = (408, 409, 429)
FIRST_BACKOFF_S = 0.25
MAX_BACKOFF_S = 10.0  # a longer wait is not one to hold an event in place for
LONG_FIRST_S = 30.0  # as long as a waiting call: it ends with the provider's error, and at once
LONG_STEPS = (1, 2, 4, 10)  # times the first: 30, 60, 120, 300, 300, ... s
LONG_JITTER = 0.25
MAX_ATTEMPTS = 50  # told of a job that has ended
MAX_ATTEMPTS_ON_THE_WAY = 10  # told while it runs: the ingress keeps that of many jobs in memory


def is_passing_status(status: int) -> bool:
    """True if the same request may be answered otherwise later."""
    return status in PASSING_STATUS or status >= 500


def quick_wait_s(tries: int, *, retry_after_s: float | None, random: Random) -> float:
    """Before the next try of the same round, of which `tries` were made."""
    backoff: float = FIRST_BACKOFF_S * 2 ** (tries - 1) * random.uniform(0.5, 1.5)
    return max(backoff, retry_after_s or 0.0)


def long_wait_s(rounds: int, *, first_s: float, retry_after_s: float | None, random: Random) -> float:
    """Before the next round, of which `rounds` were put off already. The jitter only lengthens it."""
    step: float = first_s * LONG_STEPS[min(rounds, len(LONG_STEPS) - 1)]
    return max(step, retry_after_s or 0.0) * random.uniform(1, 1 + LONG_JITTER)


def latest(attempts: tuple[Attempt, ...], most: int = MAX_ATTEMPTS) -> tuple[Attempt, ...]:
    """As many of the tries as are told."""
    return attempts[-most:]
