"""Answers as OpenAI's clients read them, and what they cannot be told."""

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ingress.http.problems import Problem
from ingress.openai_api.chat import ChatStream
from ingress.openai_api.chunks import Chunks, whole
from ingress.outcome import Outcome
from ingress.streaming import Listening
from tests.ingress.channel_scene import FIRST, JOB, SECOND, THIRD, FakeTopic, Replica, completed
from tests.waiting import until

JOB_ID = UUID("0192f0c1-2b3c-8d4e-9f50-6172839405a6")
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
ANSWER: dict[str, Any] = {"model": "m-1", "usage": USAGE, "result": {"text": "Because.", "finish_reason": "length"}}
REFUSED: dict[str, Any] = {"status": "refused", "reason": "x", "answer": "I cannot.", "confidence": 0.8}


def test_an_answer_is_a_completion() -> None:
    found = ChatCompletion.model_validate(whole(JOB_ID, "asked", ANSWER), strict=True)
    assert found.id == f"chatcmpl-{JOB_ID}"
    assert (found.model, found.choices[0].message.content) == ("m-1", "Because.")
    assert (found.choices[0].finish_reason, found.choices[0].message.refusal) == ("length", None)
    assert found.usage is not None
    assert found.usage.total_tokens == 12
    assert found.created == 1730616044


@pytest.mark.parametrize(("status", "finish_reason"), [("refused", "stop"), ("fallback", "content_filter")])
def test_a_refusal_is_an_answer_whose_message_it_is(status: str, finish_reason: str) -> None:
    body = whole(JOB_ID, "asked", {**REFUSED, "status": status})
    found = ChatCompletion.model_validate(body, strict=True)
    assert (found.choices[0].message.content, found.choices[0].message.refusal) == ("I cannot.", "I cannot.")
    assert (found.model, found.choices[0].finish_reason, body["status"]) == ("asked", finish_reason, status)


def test_a_reason_that_openai_does_not_know_is_told_as_one_that_it_knows() -> None:
    body = whole(JOB_ID, "m", {**ANSWER, "usage": None, "result": {"text": "x", "finish_reason": "load"}})
    assert (body["choices"][0]["finish_reason"], "usage" in body) == ("stop", False)


class Told:
    """What a client of a stream has. `text`, `error`: as it came; `done`: by its own word."""

    def __init__(self, replica: Replica, **options: Any) -> None:
        self._chunks = chunks = Chunks(JOB, "m-1", with_usage=options.pop("with_usage", False))
        listening = Listening(replica.channels.listen(JOB, after=None, since_ms=None))
        replica.stack.callback(listening.close)
        self._told = ChatStream(listening, JOB, chunks).told()
        self.text, self.comments = "", 0
        self.chunks: list[ChatCompletionChunk] = []
        self.bodies: list[dict[str, Any]] = []
        self.error: Any = None
        self.done = False

    @property
    def said_anew(self) -> str | None:
        return self._chunks._anew

    async def take(self) -> bool:
        try:
            written = await anext(self._told)
        except StopAsyncIteration:
            return False
        for event in written.decode().split("\n\n"):
            if event.startswith(":"):
                self.comments += 1
            elif event == "data: [DONE]":
                self.done = True
            elif event:
                body = json.loads(event.removeprefix("data: "))
                if "error" in body:
                    self.error = body["error"]
                    continue
                self.bodies.append(body)
                self.chunks.append(ChatCompletionChunk.model_validate(body, strict=True))
                for choice in self.chunks[-1].choices:
                    self.text += choice.delta.content or ""
        return True

    async def until(self, text: str) -> None:
        while self.text != text:
            assert await self.take()

    async def whole(self) -> "Told":
        while await self.take():
            pass
        return self


async def test_a_stream_is_role_pieces_reason_usage_and_done() -> None:
    replica = Replica(topic := FakeTopic())
    told = Told(replica, with_usage=True)
    topic.tell(FIRST, 0, "Air ")
    await told.until("Air ")
    topic.tell(FIRST, 1, "scatters.", final=True)
    await told.until("Air scatters.")
    result = {"result": {"text": "Air scatters.", "finish_reason": "length"}, "usage": USAGE}
    replica.finish(Outcome("completed", result, None, stream=topic.range(FIRST, 0, 1)))
    await told.whole()
    assert [chunk.choices[0].delta.role for chunk in told.chunks if chunk.choices] == ["assistant", None, None, None]
    assert [chunk.choices[0].finish_reason for chunk in told.chunks if chunk.choices] == [None, None, None, "length"]
    assert told.chunks[-1].choices == []
    assert told.chunks[-1].usage is not None
    assert told.chunks[-1].usage.total_tokens == 12
    assert all(body["usage"] is None for body in told.bodies[:-1])
    assert {(chunk.id, chunk.model) for chunk in told.chunks} == {(f"chatcmpl-{JOB}", "m-1")}
    assert told.done


async def test_an_answer_that_comes_at_once_is_a_stream_all_the_same() -> None:
    replica = Replica(FakeTopic())
    told = Told(replica)
    replica.finish(Outcome("completed", {**ANSWER}, None))
    await told.whole()
    assert (told.text, told.done, told.chunks[-1].usage) == ("Because.", True, None)


async def test_a_refusal_is_told_with_its_status() -> None:
    replica = Replica(FakeTopic())
    told = Told(replica)
    replica.finish(Outcome("completed", REFUSED, None))
    await told.whole()
    assert (told.text, told.done, told.bodies[-1]["status"]) == ("I cannot.", True, "refused")


async def test_another_execution_that_says_the_same_goes_on_where_the_first_was() -> None:
    replica = Replica(topic := FakeTopic())
    told = Told(replica)
    topic.tell(FIRST, 0, "Air scat")
    await told.until("Air scat")
    for sequence, piece in enumerate(("Air ", "scatters ", "blue.")):
        topic.tell(SECOND, sequence, piece, final=sequence == 2)
    replica.finish(completed("Air scatters blue.", topic.range(SECOND, 1, 3)))
    await told.whole()
    assert (told.text, told.done, told.error) == ("Air scatters blue.", True, None)
    assert sum(choice.delta.role is not None for chunk in told.chunks for choice in chunk.choices) == 1


async def test_another_execution_before_the_first_word_is_nothing_to_speak_of() -> None:
    replica = Replica(topic := FakeTopic())
    told = Told(replica)
    topic.tell(FIRST, 0, "")
    topic.tell(SECOND, 0, "Air.", final=True)
    replica.finish(completed("Air.", topic.range(SECOND, 1, 1)))
    await told.whole()
    assert (told.text, told.done) == ("Air.", True)


@pytest.mark.parametrize("text", ["Other words.", "Air", ""])
async def test_another_execution_that_says_another_thing_is_an_error(text: str) -> None:
    replica = Replica(topic := FakeTopic())
    told = Told(replica)
    topic.tell(FIRST, 0, "Air scatters")
    await told.until("Air scatters")
    topic.tell(SECOND, 0, text, final=True)
    replica.finish(completed(text, topic.range(SECOND, 1, 1)))
    await told.whole()
    assert (told.text, told.done) == ("Air scatters", False)
    assert (told.error["code"], told.error["type"], told.error["job_id"]) == (
        "stream-restarted",
        "server_error",
        str(JOB),
    )


async def test_an_answer_that_is_withheld_after_some_of_it_was_told_ends_as_filtered() -> None:
    replica = Replica(topic := FakeTopic())
    told = Told(replica)
    topic.tell(FIRST, 0, "Air scatters")
    await told.until("Air scatters")
    result = {"status": "fallback", "reason": "secret", "answer": "It was withheld.", "confidence": "low"}
    replica.finish(Outcome("completed", result, None))
    await told.whole()
    assert (told.text, told.done, told.error) == ("Air scatters", True, None)
    assert told.chunks[-2].choices[0].delta.refusal == "It was withheld."
    assert told.chunks[-1].choices[0].finish_reason == "content_filter"
    assert told.bodies[-1]["status"] == "fallback"


async def test_a_third_execution_begins_its_comparison_anew() -> None:
    replica = Replica(topic := FakeTopic())
    told = Told(replica)
    topic.tell(FIRST, 0, "Air scat")
    await told.until("Air scat")
    taking = asyncio.create_task(told.whole())
    topic.tell(SECOND, 0, "Air")
    await until(lambda: told.said_anew == "Air")
    topic.tell(THIRD, 0, "Air scatters.", final=True)
    replica.finish(completed("Air scatters.", topic.range(THIRD, 2, 2)))
    await taking
    assert (told.text, told.done) == ("Air scatters.", True)


async def test_what_fails_before_the_first_word_is_an_error_like_any_other() -> None:
    replica = Replica(FakeTopic())
    told = Told(replica)
    replica.finish(Outcome("error", None, {"code": "provider-http-500", "message": "it answered with status 500"}))
    with pytest.raises(Problem) as caught:
        await told.take()
    assert (caught.value.status, caught.value.code) == (502, "provider-http-500")


async def test_what_fails_later_is_an_error_in_the_stream() -> None:
    replica = Replica(topic := FakeTopic())
    told = Told(replica)
    topic.tell(FIRST, 0, "Air ")
    await told.until("Air ")
    replica.finish(Outcome("error", None, {"code": "timeout", "message": "there was no answer in time"}))
    await told.whole()
    assert (told.error["code"], told.error["message"], told.done) == ("timeout", "there was no answer in time", False)


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_replica_that_stops_says_where_the_answer_will_be(has_begun: bool) -> None:
    replica = Replica(topic := FakeTopic())
    told = Told(replica)
    if has_begun:
        topic.tell(FIRST, 0, "Air ")
        await told.until("Air ")
    replica.channels._channels[JOB].close("this replica is stopping")
    if has_begun:
        await told.whole()
        assert told.error["code"] == "stream-cut"
        assert f"/jobs/{JOB}" in told.error["message"]
        return
    with pytest.raises(Problem) as caught:
        await told.take()
    assert (caught.value.status, caught.value.code, caught.value.extra["job_id"]) == (503, "stream-cut", str(JOB))


async def test_where_nothing_comes_for_long_the_stream_begins_with_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica(FakeTopic())
    told = Told(replica)
    monkeypatch.setattr("ingress.following.listener.Listener.news.__kwdefaults__", {"comment_every_s": 0.01})
    assert await told.take()
    assert (told.comments, told.chunks) == (1, [])
    replica.finish(Outcome("error", None, {"code": "timeout", "message": "there was no answer in time"}))
    await told.whole()
    assert told.error["code"] == "timeout"
