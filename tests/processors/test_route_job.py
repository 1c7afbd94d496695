from datetime import timedelta

from processors.route_job import route_job
from processors.stage import Emit
from schemas.events import CompletionRequested, JobFinished, JobProgressed
from tests.factories import NOW, chat_request, job, job_admitted


def routed(event, *, present=("openai", "local"), allowed=("openai", "local"), default=None, cancelled=()):
    result = route_job(
        event, providers=lambda: present, allowed=allowed, default=default, default_timeout_s=30,
        is_cancelled=lambda job: job.job_id in cancelled, now=NOW,
    )  # fmt: skip
    assert isinstance(result, Emit)
    return result.events


def test_the_provider_asked_for_gets_the_job_and_the_waiter_hears_of_it() -> None:
    event = job_admitted(request=chat_request(provider="local", timeout=7))
    requested, progressed = routed(event)
    assert isinstance(requested, CompletionRequested)
    assert (requested.provider, requested.timeout_s) == ("local", 7)
    assert isinstance(progressed, JobProgressed)
    assert (progressed.state, progressed.rate_limit) == ("admitted", event.rate_limit)


def test_the_default_is_used_else_the_first_present() -> None:
    assert routed(job_admitted(), default="local")[0].provider == "local"
    assert routed(job_admitted())[0].provider == "openai"
    assert routed(job_admitted(), present=("local",), default="openai")[0].provider == "local"


def test_a_provider_that_is_not_present_ends_the_job_with_the_list() -> None:
    (finished,) = routed(job_admitted(request=chat_request(provider="gemini")))
    assert isinstance(finished, JobFinished)
    assert finished.error is not None
    assert finished.error.code == "no-such-provider"
    assert "openai, local" in finished.error.message


def test_while_no_worker_has_said_anything_a_job_waits_in_its_topic() -> None:
    assert isinstance(routed(job_admitted(), present=())[0], CompletionRequested)


def test_an_expired_job_is_not_sent_on() -> None:
    (finished,) = routed(job_admitted(job=job(expires_at=NOW - timedelta(seconds=1))))
    assert isinstance(finished, JobFinished)
    assert finished.error is not None
    assert finished.error.code == "expired"


def test_a_cancelled_job_is_not_sent_on() -> None:
    event = job_admitted()
    (finished,) = routed(event, cancelled={event.job.job_id})
    assert isinstance(finished, JobFinished)
    assert finished.error is not None
    assert finished.error.code == "cancelled"
