from datetime import timedelta
from uuid import UUID

import pytest

from processors.route_job import KnownProviders, route_job
from processors.stage import Emit
from schemas.events import (
    CompletionRequested,
    DocumentReceived,
    EmbeddingRequested,
    JobFinished,
    JobProgressed,
    RetrievalRequested,
    SpeechRequested,
    TrainingRequested,
)
from schemas.generation import GenerationConfig
from schemas.requests import (
    DocumentReference,
    DocumentRequest,
    EmbeddingRequest,
    RagRequest,
    SearchRequest,
    SpeechRequest,
    TrainingRequest,
    kind_of,
)
from tests.factories import NOW, chat_request, job, job_admitted


def routed(
    event, *, present=("openai", "local"), seen=(), configured=(), allowed=("openai", "local"), default=None,
    clock_is_right=True, cancelled=(), embedding=(), silent=(), default_embedding=None, speaking=(), spoke=(),
    training=(), trained=(), not_training=None,
):  # fmt: skip
    known = KnownProviders(
        present, (*present, *seen), configured, embedding, silent, speaking, (*speaking, *spoke), training,
        (*training, *trained), not_training or {},
    )  # fmt: skip
    result = route_job(
        event, providers=lambda: known, allowed=allowed, default=default, default_timeout_s=30,
        clock_is_right=lambda: clock_is_right, is_cancelled=lambda job: job.job_id in cancelled, now=NOW,
        default_embedding=default_embedding,
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


def test_who_only_makes_vectors_is_never_asked_for_an_answer() -> None:
    given = {"present": ("local", "openai"), "allowed": ("local", "openai"), "silent": ("local",)}
    assert routed(job_admitted(), **given)[0].provider == "openai"
    (finished,) = routed(job_admitted(request=chat_request(provider="local")), **given)
    assert finished.error.code == "no-such-provider"
    embedding = job_admitted(job=job(kind="embedding"), request=EmbeddingRequest(texts=("a",)))
    assert routed(embedding, embedding=("local",), **given)[0].provider == "local"


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


def test_while_no_worker_lives_a_job_waits_where_somebody_will_come_back_for_it() -> None:
    """Best first: a topic that somebody has read, one whose provider is configured here, any."""
    assert routed(job_admitted(), present=(), seen=("local",), configured=("openai",))[0].provider == "local"
    assert routed(job_admitted(), present=(), seen=("local",), default="openai")[0].provider == "local"
    assert routed(job_admitted(), present=(), configured=("local",))[0].provider == "local"
    assert routed(job_admitted(), present=())[0].provider == "openai"


def test_a_provider_asked_for_that_is_away_at_the_moment_is_waited_for() -> None:
    event = job_admitted(request=chat_request(provider="openai"))
    assert routed(event, present=("local",), seen=("openai",))[0].provider == "openai"
    assert routed(event, present=("local",), configured=("openai",))[0].provider == "openai"


def test_a_provider_asked_for_that_nobody_knows_ends_the_job() -> None:
    for present, there in ((("local",), "local"), ((), "none")):
        (finished,) = routed(job_admitted(request=chat_request(provider="openai")), present=present)
        assert isinstance(finished, JobFinished)
        assert finished.error is not None
        assert finished.error.code == "no-such-provider"
        assert finished.error.message.endswith(f"present are: {there}")


def test_an_expired_job_is_not_sent_on() -> None:
    (finished,) = routed(job_admitted(job=job(expires_at=NOW - timedelta(seconds=1))))
    assert isinstance(finished, JobFinished)
    assert finished.error is not None
    assert finished.error.code == "expired"


def test_nothing_expires_by_a_clock_that_is_wrong() -> None:
    event = job_admitted(job=job(expires_at=NOW - timedelta(seconds=1)))
    assert isinstance(routed(event, clock_is_right=False)[0], CompletionRequested)


def test_a_cancelled_job_is_not_sent_on() -> None:
    event = job_admitted()
    (finished,) = routed(event, cancelled={event.job.job_id})
    assert isinstance(finished, JobFinished)
    assert finished.error is not None
    assert finished.error.code == "cancelled"


def texts(**more):
    return job_admitted(job=job(kind="embedding"), request=EmbeddingRequest(texts=("a",), **more))


def test_a_job_of_a_disabled_user_is_not_sent_on() -> None:
    event = job_admitted()
    for disabled in (True, False):
        result = route_job(
            event, providers=lambda: KnownProviders(("openai",)), allowed=("openai",), default=None,
            default_timeout_s=30, clock_is_right=lambda: True, is_cancelled=lambda _: False,
            is_disabled=[lambda _: False, lambda job: job == event.job][disabled], now=NOW,
        )  # fmt: skip
        assert isinstance(result, Emit)
        first = result.events[0]
        assert isinstance(first, JobFinished) == disabled
        if isinstance(first, JobFinished):
            assert first.error is not None
            assert first.error.code == "user-disabled"


def test_texts_go_to_a_provider_that_makes_vectors() -> None:
    event = texts(timeout=7)
    requested, progressed = routed(event, embedding=("local",))
    assert isinstance(requested, EmbeddingRequested)
    assert (requested.provider, requested.timeout_s, requested.request) == ("local", 7, event.request)
    assert isinstance(progressed, JobProgressed)
    assert routed(texts(provider="openai"), embedding=("openai", "local"))[0].provider == "openai"
    assert routed(texts(), default="local", embedding=("openai", "local"))[0].provider == "local"
    waits = routed(texts(provider="openai"), present=(), seen=("openai",), embedding=("openai",))
    assert isinstance(waits[0], EmbeddingRequested)


def test_texts_for_a_provider_that_makes_no_vectors_end_with_those_that_do() -> None:
    for event in (texts(provider="openai"), texts(provider="gemini")):
        (finished,) = routed(event, configured=("openai",), embedding=("local",))
        assert finished.error is not None
        assert finished.error.code == "no-such-provider"
        assert finished.error.message.endswith("makes no vectors; those that do are: local")
    (finished,) = routed(texts())
    assert finished.error.message.endswith("those that do are: none")


def test_of_several_providers_the_first_that_lives_gets_the_job() -> None:
    asked_for = job_admitted(request=chat_request(provider=("openai", "local")))
    assert routed(asked_for)[0].provider == "openai"
    assert routed(asked_for, present=("local",), configured=("openai",))[0].provider == "local"
    assert routed(asked_for, present=(), configured=("openai", "local"))[0].provider == "openai"


def test_of_several_providers_each_must_be_known() -> None:
    event = job_admitted(request=chat_request(provider=("openai", "gemini")))
    (finished,) = routed(event)
    assert isinstance(finished, JobFinished)
    assert finished.error is not None
    assert finished.error.code == "no-such-provider"
    assert finished.error.message == "the provider gemini is not present; present are: openai, local"


def test_only_admins_rehearse_failures() -> None:
    request = chat_request(generation_config=GenerationConfig(simulate_failure=("openai",)))
    (finished,) = routed(job_admitted(request=request))
    assert isinstance(finished, JobFinished)
    assert finished.error is not None
    assert finished.error.code == "not-allowed"
    assert isinstance(routed(job_admitted(request=request, job=job(role="admin")))[0], CompletionRequested)


RAG = RagRequest(question="Where is it written?")
SEARCH = SearchRequest(query="written")
DOCUMENT = DocumentRequest(document=DocumentReference(payload_id=UUID(int=1)), source="a.pdf")


def admitted(request):
    return job_admitted(job=job(kind=kind_of(request)), request=request)


def test_a_question_to_documents_is_given_to_who_embeds_and_later_to_who_answers() -> None:
    event = job_admitted(job=job(kind="rag"), request=RAG.model_copy(update={"llm_provider": "openai"}))
    requested, progressed = routed(event, embedding=("local",))
    assert isinstance(requested, RetrievalRequested)
    assert (requested.provider, requested.provider_is_named, requested.llm_provider) == ("local", False, "openai")
    assert progressed.state == "admitted"
    named = job_admitted(job=job(kind="rag"), request=RAG.model_copy(update={"embedding_provider": "local"}))
    assert routed(named, embedding=("openai", "local"))[0].provider_is_named


def test_a_query_and_a_document_need_only_who_embeds() -> None:
    """And the one that is set for it, whoever is to answer."""
    for request, event in ((SEARCH, RetrievalRequested), (DOCUMENT, DocumentReceived)):
        requested = routed(
            admitted(request), embedding=("openai", "local"), default="openai", default_embedding="local"
        )[0]
        assert isinstance(requested, event)
        assert requested.provider == "local"


@pytest.mark.parametrize("request_", [RAG, SEARCH, DOCUMENT])
def test_where_nobody_makes_vectors_there_is_nothing_to_find_or_to_keep(request_) -> None:
    (finished,) = routed(admitted(request_), present=("openai",), embedding=())
    assert finished.error is not None
    assert finished.error.code == "no-such-provider"
    assert "makes vectors" in finished.error.message


def test_a_question_needs_somebody_who_answers_too() -> None:
    event = admitted(RAG.model_copy(update={"llm_provider": "gemini"}))
    (finished,) = routed(event, embedding=("local",))
    assert finished.error is not None
    assert "gemini" in finished.error.message


def test_a_document_may_take_longer_than_a_call() -> None:
    (requested, _) = routed(admitted(DOCUMENT), embedding=("local",))
    assert requested.timeout_s > 120


ALL = ("openai", "qwen-tts", "local")


def to_be_said(**fields):
    return job_admitted(job=job(kind="speech"), request=SpeechRequest(prompt=fields.pop("prompt", "Hello."), **fields))


def test_a_text_goes_to_a_provider_that_speaks_whoever_answers_prompts() -> None:
    requested, progressed = routed(to_be_said(), allowed=ALL, default="openai", speaking=("local", "qwen-tts"))
    assert isinstance(requested, SpeechRequested)
    assert (requested.provider, requested.timeout_s) == ("qwen-tts", 30)  # the first of those that are allowed
    assert isinstance(progressed, JobProgressed)
    assert routed(to_be_said(provider="local"), allowed=ALL, speaking=("local", "qwen-tts"))[0].provider == "local"
    assert routed(to_be_said(), allowed=ALL, spoke=("local",))[0].provider == "local"  # somebody will come back


def test_a_text_has_the_time_that_its_length_takes() -> None:
    times = [routed(to_be_said(prompt="x" * chars), speaking=("local",))[0].timeout_s for chars in (10, 2000, 20_000)]
    assert times == [30, 50, 120]
    assert routed(to_be_said(timeout=9), speaking=("local",))[0].timeout_s == 9


def test_a_text_that_nobody_says_ends_with_who_does() -> None:
    for asked, speaking, told in (
        ("openai", ("local",), "openai does not speak"),
        (None, (), "those that do are: none"),
    ):
        (finished,) = routed(to_be_said(provider=asked), allowed=ALL, speaking=speaking)
        assert finished.error is not None
        assert finished.error.code == "no-such-provider"
        assert told in finished.error.message


TRAINING_ALL = ("openai", "qwen3vl", "local")


def to_be_trained(**fields):
    return job_admitted(job=job(kind="training"), request=TrainingRequest(name="polite", **fields))


def test_a_training_goes_to_a_provider_that_trains_whoever_answers_prompts() -> None:
    requested, progressed = routed(to_be_trained(), allowed=TRAINING_ALL, training=("local", "qwen3vl"))
    assert isinstance(requested, TrainingRequested)
    assert requested.provider == "qwen3vl"  # the first of those that are allowed
    assert requested.timeout_s > 3600
    assert isinstance(progressed, JobProgressed)
    chosen = routed(to_be_trained(), allowed=TRAINING_ALL, default="local", training=("local", "qwen3vl"))[0]
    assert chosen.provider == "local"
    assert routed(to_be_trained(provider="local"), allowed=TRAINING_ALL, trained=("local",))[0].provider == "local"


@pytest.mark.parametrize(
    ("asked", "training", "told"),
    [("local", ("qwen3vl",), "do: make lora; those that train are: qwen3vl"), (None, (), "do: make lora"),
     ("openai", ("qwen3vl",), "the provider openai does not train")],
)  # fmt: skip
def test_a_training_that_nobody_can_do_ends_with_what_to_do(asked, training, told) -> None:
    (finished,) = routed(
        to_be_trained(provider=asked), allowed=TRAINING_ALL, training=training, not_training={"local": "do: make lora"}
    )
    assert finished.error is not None
    assert finished.error.code == "training-unavailable"
    assert told in finished.error.message
