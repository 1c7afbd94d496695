"""Passages in another order, where a provider is asked for one."""

from collections.abc import Mapping

import pytest

from processors.errors import PermanentError, RetryableError
from processors.ports import Capabilities, Completion, CompletionRequest
from tests.factories import question
from tests.processors.shelf import ASKED, BEES, Shelf


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


class Reranker:
    name, model = "openai", "m"
    capabilities = Capabilities(parameters=frozenset({"temperature", "max_tokens"}))

    def __init__(self, reply: str | Exception) -> None:
        self.reply, self.asked = reply, list[CompletionRequest]()

    async def complete(self, request: CompletionRequest) -> Completion:
        self.asked.append(request)
        if isinstance(self.reply, Exception):
            raise self.reply
        return Completion(self.reply, "m", "stop", None)


REPLIES: Mapping[str, tuple[str | Exception, list[int]]] = {
    "plain": ("3, 1, 2", [2, 0, 1]),
    "chatty": ("The most useful are [2], then [3].", [1, 2, 0]),
    "doubled": ("2,2,1", [1, 0, 2]),
    "beyond": ("9, 8, 7", [0, 1, 2]),
    "mostly beyond": ("9, 8, 2, 7", [0, 1, 2]),
    "nonsense": ("I cannot do that.", [0, 1, 2]),
    "too many": (",".join(str(n) for n in range(1, 40)), [0, 1, 2]),
    "empty": ("", [0, 1, 2]),
    "refused": (PermanentError("provider-http-400", "no"), [0, 1, 2]),
    "away": (RetryableError("provider-unreachable", "away"), [0, 1, 2]),
    "too slow": (TimeoutError(), [0, 1, 2]),
}


@pytest.mark.parametrize("case", REPLIES)
async def test_a_provider_puts_them_in_order_and_nonsense_changes_nothing(shelf: Shelf, case: str) -> None:
    reply, order = REPLIES[case]
    texts = [f"Bees, part {number}." for number in range(3)]
    await shelf.add(*texts)
    reranker = Reranker(reply)
    shelf.rerankers = {"openai": reranker}
    assert await shelf.answered_from(question(ASKED, rerank_provider="openai")) == [texts[place] for place in order]
    (request,) = reranker.asked
    assert request.generation.temperature == 0
    assert request.timeout_s == 10
    assert all(text in request.prompt for text in texts)


async def test_who_is_not_there_to_put_them_in_order_is_not_missed(shelf: Shelf) -> None:
    await shelf.add(BEES)
    assert await shelf.answered_from(question(ASKED, rerank_provider="gemini")) == [BEES]
