"""The image of a prompt: fetched where somebody sees, held while the call lasts, and a clear end without it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from processors.completion.fall_over import FallOver
from processors.completion.with_image import with_image
from processors.errors import RetryableError
from processors.generate_completion import generate_completion
from processors.ports import Capabilities, Completion, CompletionRequest, Image
from processors.run_stage import Limits, run_stage
from processors.stage import Emit, Hop, StageResult
from schemas.events import CompletionRequested, JobFinished
from schemas.requests import ImageReference
from tests.factories import NOW, chat_request, completion_requested
from tests.fakes import FakeDeltas, OpenGuard
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


async def run(
    event: CompletionRequested, provider: Any, images: FakeImages, fall_over: FallOver | None = None
) -> StageResult:
    """As a worker does: with all of `run_stage` around where the event has several providers."""
    fall_over = fall_over or FallOver()
    generate = partial(
        generate_completion, provider=provider, deltas=FakeDeltas(), guard=OpenGuard(), fall_over=fall_over,
        max_response_chars=100,
    )  # fmt: skip
    stage = partial(with_image, stage=generate, provider=provider, images=images, fall_over=fall_over)
    if not isinstance(event.request.provider, tuple):
        return await stage(event, now=NOW)
    return await run_stage(
        stage, event, job=event.job, target=event.provider, limits=Limits(3, 30, 3600), now=lambda: NOW,
        onward=fall_over.of(event),
    )  # fmt: skip


def finished(result: StageResult) -> JobFinished:
    assert isinstance(result, Emit)
    (event,) = result.events
    assert isinstance(event, JobFinished)
    return event


def seen(asked_for: Any = None, **more: Any) -> CompletionRequested:
    request = chat_request(image=ImageReference(payload_id=uuid4()), provider=asked_for)
    return completion_requested(request=request, **more)


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


async def test_where_the_job_has_another_provider_that_one_is_asked_to_look() -> None:
    event, images = seen(("openai", "gemini")), FakeImages()
    hop = await run(event, Seeing(max_images=0), images)
    assert isinstance(hop, Hop)
    assert (hop.code, hop.reason, hop.event.provider) == ("images-unsupported", "images-unsupported", "gemini")
    assert (hop.event.request.image, images.asked) == (event.request.image, [])
    assert finished(await run(hop.event, Seeing(), images)).status == "completed"
    error = finished(await run(hop.event, Seeing(max_images=0), images)).error  # the last one
    assert error is not None
    assert error.code == "images-unsupported"
    assert "gemini" in error.message
    error = finished(await run(event, Seeing(max_images=0), images, FallOver(frozenset()))).error  # nobody falls over
    assert error is not None
    assert error.code == "images-unsupported"


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
