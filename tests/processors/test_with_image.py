"""The image of a prompt: fetched where somebody sees, held while the call lasts, and a clear end without it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from processors.errors import RetryableError
from processors.generate_completion import generate_completion
from processors.ports import Capabilities, Completion, CompletionRequest, Image
from processors.stage import Emit, StageResult
from processors.with_image import with_image
from schemas.events import CompletionRequested, JobFinished
from schemas.requests import ImageReference
from tests.factories import NOW, chat_request, completion_requested
from tests.fakes import FakeDeltas
from tests.pictures import GIF

PICTURE = Image("image/gif", GIF)


class Seeing:
    """A provider that says what it was asked."""

    name, model = "openai", "m"

    def __init__(self, max_images: int = 1) -> None:
        self.capabilities = Capabilities(frozenset(), max_images=max_images)
        self.asked: list[CompletionRequest] = []

    async def stream(self, request: CompletionRequest, on_delta: Any) -> Completion:
        self.asked.append(request)
        return Completion("A dot.", "m", "stop", None)


class FakeImages:
    """`asked`: for whom; `held`: how many are held now."""

    def __init__(self, found: Image | Exception | None = PICTURE) -> None:
        self._found = found
        self.asked: list[tuple[Any, str]] = []
        self.held_now = 0

    @asynccontextmanager
    async def held(self, reference: ImageReference, *, user_id: str) -> AsyncIterator[Image | None]:
        self.asked.append((reference.payload_id, user_id))
        if isinstance(self._found, Exception):
            raise self._found
        self.held_now += 1
        try:
            yield self._found
        finally:
            self.held_now -= 1


async def run(event: CompletionRequested, provider: Any, images: FakeImages) -> StageResult:
    stage = partial(generate_completion, provider=provider, deltas=FakeDeltas(), max_response_chars=100)
    return await with_image(event, stage=stage, provider=provider, images=images, now=NOW)


def finished(result: StageResult) -> JobFinished:
    assert isinstance(result, Emit)
    (event,) = result.events
    assert isinstance(event, JobFinished)
    return event


def seen(**more: Any) -> CompletionRequested:
    return completion_requested(request=chat_request(image=ImageReference(payload_id=uuid4())), **more)


async def test_the_provider_gets_the_image_and_it_is_let_go_after_the_call() -> None:
    provider, images, event = Seeing(), FakeImages(), seen()
    outcome = finished(await run(event, provider, images))
    assert outcome.status == "completed"
    assert [request.images for request in provider.asked] == [(PICTURE,)]
    assert event.request.image is not None
    assert images.asked == [(event.request.image.payload_id, "alice")]
    assert images.held_now == 0
    assert "GIF" not in outcome.model_dump_json()


async def test_a_prompt_without_one_asks_for_none() -> None:
    provider, images = Seeing(max_images=0), FakeImages()
    assert finished(await run(completion_requested(), provider, images)).status == "completed"
    assert images.asked == []
    assert provider.asked[0].images == ()


async def test_a_provider_that_cannot_see_is_not_asked_and_nothing_is_fetched() -> None:
    provider, images = Seeing(max_images=0), FakeImages()
    error = finished(await run(seen(), provider, images)).error
    assert error is not None
    assert (error.code, provider.asked, images.asked) == ("images-unsupported", [], [])
    assert "openai" in error.message


async def test_an_image_that_is_gone_or_somebody_elses_ends_the_job_clearly() -> None:
    provider = Seeing()
    error = finished(await run(seen(), provider, FakeImages(None))).error
    assert error is not None
    assert (error.code, provider.asked) == ("no-such-payload", [])


async def test_a_store_that_is_away_is_tried_again() -> None:
    provider = Seeing()
    with pytest.raises(RetryableError) as caught:
        await run(seen(), provider, FakeImages(RetryableError("postgres-unavailable", "away")))
    assert (caught.value.code, provider.asked) == ("postgres-unavailable", [])
