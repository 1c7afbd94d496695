"""An answer as OpenAI's clients read it: whole, or as the chunks of a stream."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

from ingress.following.told import text_told
from ingress.http.problems import Problem
from ingress.openai_api.errors import error_of
from schemas.ids import JobIds

DONE = b"data: [DONE]\n\n"
FINISH_REASONS = {"stop", "length", "content_filter"}


class AnotherAnswerError(Exception):
    """What was told is void, which cannot be said in this protocol."""


def whole(job_id: UUID, model: str, result: dict[str, Any]) -> dict[str, Any]:
    """The body of an answer, from that of `POST /chat/`.

    A refused or withheld answer is one like others: its text is the message, said once more as OpenAI says refusals,
    and `status` stands beside `choices`.
    """
    status = result.get("status")
    message = {"role": "assistant", "content": _text(result), "refusal": result["answer"] if status else None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(result)}
    body = _head(job_id, "chat.completion", result.get("model") or model) | {"choices": [choice]}
    if usage := result.get("usage"):
        body["usage"] = usage
    return body | ({"status": status} if status else {})


class Chunks:
    """A stream's chunks, in order: the role, what is said, the end, and what it has used where that is wanted.

    Another execution that takes the answer over begins anew. Where its text begins with all that was told, it goes on
    from there; what is told cannot be taken back.
    """

    def __init__(self, job_id: UUID, model: str, *, with_usage: bool) -> None:
        """`model`: as it was asked for."""
        self._head = _head(job_id, "chat.completion.chunk", model)
        self._with_usage = with_usage
        self._told = ""
        self._anew: str | None = None  # what another execution has said, before it has come as far
        self.has_begun = False

    def void(self) -> None:
        """All that was told so far is void."""
        self._anew = "" if self._told else None

    def said(self, pieces: Sequence[bytes]) -> bytes:
        """What they say.

        Raises:
            AnotherAnswerError: It is not what was told before.
        """
        text = "".join(map(text_told, pieces))
        if self._anew is not None:
            self._anew += text
            if not (self._anew.startswith(self._told) or self._told.startswith(self._anew)):
                raise AnotherAnswerError
            if len(self._anew) < len(self._told):
                return b""
            text, self._anew = self._anew[len(self._told) :], None
        self._told += text
        return self._begin() + self._chunk({"content": text}) if text else b""

    def end(self, result: dict[str, Any]) -> bytes:
        """What comes after the text, from the body of `POST /chat/`.

        Raises:
            AnotherAnswerError: What was told is more than the answer.
        """
        if self._anew is not None:
            raise AnotherAnswerError
        status = result.get("status")
        told = self._begin() + self._chunk({}, _finish_reason(result), **({"status": status} if status else {}))
        usage = result.get("usage")
        if self._with_usage and usage:
            told += _event(self._head | {"choices": [], "usage": usage})
        return told + DONE

    def withheld(self, result: dict[str, Any]) -> bytes:
        """The end of an answer of which a part was told, and which is withheld: what was told is void, and is left."""
        delta = {"refusal": result["answer"]}
        return self._begin() + self._chunk(delta) + self._chunk({}, "content_filter", status=result["status"]) + DONE

    def _begin(self) -> bytes:
        if self.has_begun:
            return b""
        self.has_begun = True
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._with_usage else {}
        return _event(self._head | {"choices": [choice]} | usage | more)


def error_event(problem: Problem) -> bytes:
    """After it nothing comes: clients raise it."""
    return _event({"error": error_of(problem.status, problem.code, problem.detail, problem.extra) | problem.extra})


def _head(job_id: UUID, kind: str, model: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{job_id}",
        "object": kind,
        "created": JobIds.minted_at_ms(job_id) // 1000,
        "model": model,
    }


def _text(result: dict[str, Any]) -> str:
    text: str = result["answer"] if "status" in result else result["result"]["text"]
    return text


def _finish_reason(result: dict[str, Any]) -> str:
    """One that OpenAI has. A refusal has ended as it should; an answer that its provider withheld has not."""
    if "status" in result:
        return "stop" if result["status"] == "refused" else "content_filter"
    reason: str = result["result"]["finish_reason"]
    return reason if reason in FINISH_REASONS else "stop"


def _event(data: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(data)
