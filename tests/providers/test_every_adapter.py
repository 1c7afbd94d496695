"""One table of cases for all adapters, asked for a whole answer and for a stream: what comes back, and what is said."""

import asyncio
import logging
import traceback
import tracemalloc
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any

import pytest

from processors.completion.fall_over import FallOver
from processors.errors import PermanentError, RetryableError
from processors.generate_completion import generate_completion
from processors.ports import MAX_TEXTS, Image
from processors.run_stage import Limits, run_stage
from processors.stage import Emit
from providers import plain_http, sdk_http
from providers.local import make_local
from tests.factories import chat_request, completion_requested, job
from tests.fakes import FakeDeltas, OpenGuard
from tests.providers.adapters import EMBEDDING, KEY, STREAMING, Adapter, request
from tests.providers.conftest import Asked
from tests.stand_ins.model_api import ModelApi
from tests.waiting import until

PNG = Image("image/png", b"\x89PNG\r\n\x1a\n-a-small-picture")
CUT_WITHIN_S = 0.1
FAILURES = (PermanentError, RetryableError)


# --- answers ---


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("answer", "stop"), ("filtered", "content_filter"), ("length", "length"), ("empty", "stop"), ("blank", "stop")],
)
async def test_an_answer_has_text_model_reason_and_usage(adapter: Adapter, ask: Asked, mode: str, reason: str) -> None:
    completion = await ask(request(f"[mode={mode}] why is the sky blue?"))
    if mode in adapter.lacks:
        reason = "stop"
    text = {"empty": "", "blank": " \n "}.get(mode, f"Answer to: [mode={mode}] why is the sky blue?")
    assert (completion.text, completion.finish_reason, completion.usage) == (text, reason, adapter.usage)
    assert completion.model == adapter.model


@pytest.mark.parametrize("adapter", ["openai", "lmstudio", "local", "gemini"], indirect=True)
async def test_a_blocked_prompt_is_an_answer_that_says_so(adapter: Adapter, ask: Asked) -> None:
    completion = await ask(request("[mode=blocked]"))
    assert completion.finish_reason == "content_filter"
    assert completion.text == ("" if adapter.name == "gemini" else "I cannot help with that.")


async def test_a_stream_comes_in_pieces_where_the_api_has_streams(provider: Any) -> None:
    ask = Asked(provider, "stream")
    await ask(request("one two three four"))
    assert (len(ask.told) > 4) is provider.capabilities.streams


@pytest.mark.parametrize("adapter", STREAMING, indirect=True)
async def test_a_piece_is_told_before_the_next_is_there(provider: Any) -> None:
    ask = Asked(provider, "stream")
    call = asyncio.create_task(ask(request("[mode=stall] hello")))
    await until(lambda: ask.told, within_s=5)
    assert ask.told == ["Answer "]
    assert not call.done()
    call.cancel()
    await asyncio.wait({call})


@pytest.mark.parametrize("adapter", ["openai", "lmstudio", "local", "ollama"], indirect=True)  # whom llama.cpp may be
async def test_a_server_that_ends_its_connections_after_a_stream_is_asked_the_next_moment(
    api: ModelApi, provider: Any
) -> None:
    for n in range(20):
        assert (await Asked(provider, "stream")(request(f"[mode=closes] {n}"))).text


async def test_the_answer_is_kept_where_nothing_is_counted(ask: Asked) -> None:
    completion = await ask(request("[mode=no-usage]"))
    assert completion.text.startswith("Answer to")
    assert completion.usage is None


@pytest.mark.parametrize("adapter", STREAMING, indirect=True)  # the server of qwen3vl has one
async def test_another_model_is_asked_where_the_request_names_one(provider: Any) -> None:
    assert (await provider.complete(request("hello", model="m-2"))).model == "m-2"


async def test_its_models_are_listed(adapter: Adapter, provider: Any) -> None:
    listed = {
        "openai": "stand-in", "lmstudio": "qwen2.5-7b-instruct", "local": "SmolLM2-135M-Instruct",
        "gemini": "gemini-3-flash-preview", "ollama": "mistral:7b-instruct-q4_K_M", "qwen3vl": "Qwen3-VL-4B-Instruct",
    }  # fmt: skip
    assert (await provider.models())[0] == listed[adapter.name]


# --- failures ---


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_refusal_is_final(ask: Asked, status: int) -> None:
    with pytest.raises(PermanentError) as caught:
        await ask(request(f"[mode={status}]"))
    assert caught.value.code == f"provider-http-{status}"


async def test_a_context_that_is_too_long_is_told_from_other_refusals(ask: Asked) -> None:
    with pytest.raises(PermanentError) as caught:
        await ask(request("[mode=too-long]"))
    assert caught.value.code == "context-too-long"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_what_passes_may_work_later(ask: Asked, status: int) -> None:
    with pytest.raises(RetryableError) as caught:
        await ask(request(f"[mode={status}]"))
    assert (caught.value.code, caught.value.retry_after_s) == (f"provider-http-{status}", None)


@pytest.mark.parametrize(("how", "low", "high"), [("seconds", 1, 1), ("date", 0, 2), ("ms", 0.3, 0.3)])
async def test_the_wait_that_was_asked_for_is_passed_on(ask: Asked, how: str, low: float, high: float) -> None:
    with pytest.raises(RetryableError) as caught:
        await ask(request(f"[mode=429-{how}]"))
    assert caught.value.code == "provider-http-429"
    assert low <= (caught.value.retry_after_s or -1) <= high


@pytest.mark.parametrize("adapter", ["gemini"], indirect=True)
async def test_the_wait_in_the_body_of_geminis_429_is_passed_on(ask: Asked) -> None:
    with pytest.raises(RetryableError) as caught:
        await ask(request("[mode=429-body]"))
    assert caught.value.retry_after_s == 37.5


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_no_redirect_is_followed(api: ModelApi, ask: Asked, status: int) -> None:
    with pytest.raises(PermanentError) as caught:
        await ask(request(f"[mode={status}]"))
    assert caught.value.code == f"provider-http-{status}"
    assert sum(api.calls.values()) == 1
    assert api.last[0]  # the call, and not what a redirect leads to


@pytest.mark.parametrize("mode", ["garbage", "shape", "gzip", "huge"])
async def test_a_reply_that_makes_no_sense_is_final(ask: Asked, mode: str) -> None:
    with pytest.raises(PermanentError) as caught:
        await ask(request(f"[mode={mode}]"))
    assert caught.value.code == "provider-invalid-reply"


@pytest.mark.parametrize("mode", ["truncated", "cut", "close"])
async def test_an_answer_that_breaks_off_may_be_whole_later(ask: Asked, mode: str) -> None:
    with pytest.raises(RetryableError) as caught:
        await ask(request(f"[mode={mode}]"))
    assert caught.value.code == "provider-unreachable"


@pytest.mark.parametrize("adapter", STREAMING, indirect=True)
async def test_an_error_within_a_stream_is_that_error(provider: Any) -> None:
    with pytest.raises(RetryableError) as caught:
        await Asked(provider, "stream")(request("[mode=error-midway]"))
    assert caught.value.code == "provider-http-500"


async def test_an_answer_without_an_answer_is_none(ask: Asked) -> None:
    with pytest.raises(FAILURES) as caught:
        await ask(request("[mode=no-choices]"))
    broke_off = ask.way == "stream" and ask.provider.capabilities.streams
    assert getattr(caught.value, "code", "") == ("provider-unreachable" if broke_off else "provider-invalid-reply")


async def test_a_server_that_is_not_there_is_unreachable(adapter: Adapter) -> None:
    provider = adapter.make("http://127.0.0.1:1")
    for call in (provider.complete(request("hello")), Asked(provider, "stream")(request("hello")), provider.models()):
        with pytest.raises(RetryableError) as caught:
            await call
        assert caught.value.code == "provider-unreachable"
    await provider.close()


@pytest.mark.parametrize("mode", ["429", "hang", "huge", "garbage", "401"])
async def test_no_failure_tells_the_key_the_prompt_or_the_providers_words(
    ask: Asked, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    prompt = "-".join(("secret", "prompt"))  # a traceback holds this file's own lines
    with pytest.raises((*FAILURES, TimeoutError)) as caught:
        await asyncio.wait_for(ask(request(f"[mode={mode}] {prompt}")), 0.5 if mode == "hang" else 30)
    told = "".join(traceback.format_exception(caught.value)) + getattr(caught.value, "message", "")
    ours = [record for record in caplog.records if record.name.partition(".")[0] in ("providers", "processors")]
    for text in (KEY, prompt, f"it is {mode}", "not json"):
        assert text not in told
        assert not [record for record in ours if text in record.getMessage()]
    assert KEY not in caplog.text


# --- bounds and deadlines ---


@pytest.mark.parametrize("mode", ["huge", "huge-error"])
async def test_a_reply_of_50_mb_is_not_held(api: ModelApi, ask: Asked, mode: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FAILURES) as caught:
            await ask(request(f"[mode={mode}]"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert getattr(caught.value, "code", "") == ("provider-invalid-reply" if mode == "huge" else "provider-http-500")
    assert plain_http.MAX_REPLY_BYTES == sdk_http.MAX_REPLY_BYTES == 8 * 1024 * 1024
    assert peak < 4 * sdk_http.MAX_REPLY_BYTES
    await until(lambda: api.open == 0, within_s=2)  # what is left of it is read by nobody


@pytest.mark.parametrize("mode", ["hang", "drip"])
@pytest.mark.parametrize("way", ["complete", "stream"])
async def test_a_deadline_closes_the_connection_within_100_ms(
    api: ModelApi, adapter: Adapter, provider: Any, mode: str, way: str
) -> None:
    """By the stage, as a job's deadline comes; the server itself would go on for an hour."""

    class Streaming:
        """The stage asks for a whole answer: here it is streamed."""

        def __getattr__(self, name: str) -> Any:
            return getattr(provider, name)

        async def stream(self, asked: Any, on_delta: Any) -> Any:
            return await Asked(provider, way)(asked)

    event = completion_requested(request=chat_request(f"[mode={mode}]"), provider=adapter.name)
    stage = partial(
        generate_completion, provider=Streaming(), deltas=FakeDeltas(), guard=OpenGuard(), fall_over=FallOver(),
        max_response_chars=100,
    )  # fmt: skip
    limits = Limits(max_retries=3, timeout_s=0.4, expires_in_s=60)

    async def cut_after_s() -> float:
        began = monotonic()
        running = asyncio.create_task(
            run_stage(stage, event, job=job(), target="x", limits=limits, now=lambda: datetime.now(UTC))
        )
        await until(lambda: api.open == 1, within_s=0.3)
        await until(lambda: api.open == 0, within_s=5)
        after_s = monotonic() - began
        result = await running
        assert isinstance(result, Emit)
        (finished,) = result.events
        assert finished.error.code == "timeout"  # type: ignore[attr-defined]
        assert after_s >= 0.35
        return after_s

    for last in (False, False, True):  # what else this machine does may hold up one of them
        if await cut_after_s() <= 0.4 + CUT_WITHIN_S:
            break
        assert not last


@pytest.mark.parametrize("adapter", STREAMING, indirect=True)
async def test_a_deadline_while_a_piece_is_told_closes_the_connection_too(api: ModelApi, provider: Any) -> None:
    telling = asyncio.Event()

    async def tell(_: str) -> None:
        telling.set()
        await asyncio.sleep(3600)

    call = asyncio.create_task(provider.stream(request("[mode=stall] hello"), tell))
    await asyncio.wait_for(telling.wait(), 5)
    call.cancel()
    await asyncio.wait({call})
    await until(lambda: api.open == 0, within_s=CUT_WITHIN_S)


async def test_what_is_raised_where_a_piece_is_told_is_no_failure_of_the_provider(provider: Any) -> None:
    async def tell(_: str) -> None:
        raise OSError("the writer's own")

    with pytest.raises(OSError, match="the writer's own"):
        await provider.stream(request("hello there"), tell)


# --- images ---


async def test_an_image_is_sent_or_refused(adapter: Adapter, api: ModelApi, provider: Any) -> None:
    most = provider.capabilities.max_images
    assert most == {"local": 0, "qwen3vl": 1}.get(adapter.name, 10)
    if most:
        assert (await provider.complete(request("what is it?", images=(PNG,)))).text == "Answer to: what is it?"
    for ask in (Asked(provider, "complete"), Asked(provider, "stream")):
        with pytest.raises(PermanentError) as caught:
            await ask(request("too many", images=(PNG,) * (most + 1)))
        assert caught.value.code == "images-unsupported"
    assert "too many" not in api.calls


# --- embeddings ---


@pytest.mark.parametrize("adapter", EMBEDDING, indirect=True)
async def test_texts_become_vectors_in_their_order(api: ModelApi, provider: Any) -> None:
    found = await provider.embed(["a", "bb", "cccc"], purpose="passage", timeout_s=5)
    assert [vector[0] for vector in found.vectors] == [1, 2, 4]
    assert found.vectors[0] == (1.0, 0.25, -0.5, 1e-7)
    assert found.model == "e-1"


@pytest.mark.parametrize(
    ("mode", "error", "code"),
    [
        ("few", PermanentError, "provider-invalid-reply"), ("garbage", PermanentError, "provider-invalid-reply"),
        ("shape", PermanentError, "provider-invalid-reply"), ("huge", PermanentError, "provider-invalid-reply"),
        ("401", PermanentError, "provider-http-401"), ("429-seconds", RetryableError, "provider-http-429"),
        ("503", RetryableError, "provider-http-503"), ("close", RetryableError, "provider-unreachable"),
        ("truncated", RetryableError, "provider-unreachable"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("adapter", EMBEDDING, indirect=True)
async def test_embeddings_fail_as_answers_do(provider: Any, mode: str, error: type[Exception], code: str) -> None:
    with pytest.raises(error) as caught:
        await provider.embed([f"[mode={mode}]", "b"], purpose="query", timeout_s=5)
    assert caught.value.code == code  # type: ignore[attr-defined]


@pytest.mark.parametrize("adapter", EMBEDDING, indirect=True)
async def test_nobody_embeds_nothing_or_more_than_a_reply_holds(provider: Any) -> None:
    for texts in ([], ["x"] * (MAX_TEXTS + 1)):
        with pytest.raises(ValueError, match="between 1 and 64"):
            await provider.embed(texts, purpose="query", timeout_s=5)


@pytest.mark.parametrize("adapter", ["local"], indirect=True)
async def test_the_local_model_is_told_questions_from_passages(api: ModelApi, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    right = type(api).other

    def recorded(self: ModelApi, method: str, path: str, body: dict[str, Any]) -> Any:
        asked.append((path, body.get("input_type", "")))
        return right(self, method, path, body)

    monkeypatch.setattr(type(api), "other", recorded)
    provider = make_local(
        base_url=None, model="m-1", embedding_url=api.base_url, embedding_model="e-1", connections=2
    )  # fmt: skip
    for purpose in ("query", "passage"):
        await provider.embed(["a"], purpose=purpose, timeout_s=5)
    await provider.close()
    assert asked == [("/v1/embeddings", "query"), ("/v1/embeddings", "passage")]


@pytest.mark.parametrize("adapter", ["local"], indirect=True)
async def test_of_the_two_local_servers_either_may_be_missing(api: ModelApi) -> None:
    embeds = make_local(base_url=None, model="m-1", embedding_url=api.base_url, embedding_model="e-1", connections=2)
    answers = make_local(base_url=api.base_url, model="m-1", embedding_url=None, embedding_model="e-1", connections=2)
    assert (embeds.capabilities.embeds, embeds.model, embeds.embedding_model) == (True, "", "e-1")
    assert (answers.capabilities.embeds, answers.model, answers.embedding_model) == (False, "m-1", "")
    with pytest.raises(PermanentError, match="LOCAL_BASE_URL"):
        await embeds.complete(request("hello"))
    with pytest.raises(PermanentError, match="LOCAL_EMBEDDING_URL"):
        await answers.embed(["a"], purpose="query", timeout_s=5)
    assert (await answers.complete(request("hello"))).text == "Answer to: hello"
    assert (await embeds.embed(["a"], purpose="query", timeout_s=5)).vectors
    await embeds.close()
    await answers.close()
    with pytest.raises(ValueError, match="neither"):
        make_local(base_url=None, model="m", embedding_url=None, embedding_model="e", connections=1)
