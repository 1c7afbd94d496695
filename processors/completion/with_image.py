"""Around a stage that asks a provider: the image that belongs to the prompt, for as long as the call lasts."""

from collections.abc import Sequence
from datetime import datetime

from processors.completion.fall_over import IMAGES_UNSUPPORTED, FallOver
from processors.errors import PermanentError
from processors.ports import CompletionProvider, ImageReader
from processors.stage import AsyncStage, Emit, StageResult
from schemas.events import CompletionRequested, JobError, JobFinished

NO_SUCH_PAYLOAD = "no-such-payload"
GONE = (
    "there is no such payload: it was never yours, or its time is over; send the image itself, or upload it again with "
    "POST /payloads"
)


def cannot_see(who: str, seeing: Sequence[str] = ()) -> str:
    """That an image was sent to somebody who does not see, and what to do; `seeing`: who does, where that is known."""
    others = ", ".join(seeing) or "GET /providers"
    return f"{who} cannot look at images: ask a provider that can ({others}), or leave the image out"


async def with_image(
    event: CompletionRequested,
    *,
    stage: AsyncStage,
    provider: CompletionProvider,
    images: ImageReader,
    fall_over: FallOver,
    now: datetime,
) -> StageResult:
    """Run the stage, with its event's image if it has one.

    Args:
        event: The prompt; the image in it is only a reference.
        stage: Called as `stage(event, now=...)`, and with `images=(image,)` where there is one.
        provider: Whom it will ask.
        images: Where they lie.
        fall_over: Who is asked next where this provider cannot see.
        now: The time of the call.

    Returns:
        What the stage decided; or `Emit` with one `JobFinished`: `images-unsupported` where the provider cannot see,
        `no-such-payload` where the image is gone, or was never the user's.

    Raises:
        RetryableError, PermanentError: As the stage, and the store of images; `images-unsupported` where the job has a
            next provider.
    """
    reference = event.request.image
    if reference is None:
        return await stage(event, now=now)
    if not provider.capabilities.max_images:
        message = cannot_see(f"the provider {event.provider}")
        if (onward := fall_over.of(event)) is not None and onward.takes(IMAGES_UNSUPPORTED):
            raise PermanentError(IMAGES_UNSUPPORTED, message)
        return _refused(event, IMAGES_UNSUPPORTED, message, now)
    async with images.held(reference, user_id=event.job.user_id) as image:
        if image is None:
            return _refused(event, NO_SUCH_PAYLOAD, GONE, now)
        return await stage(event, now=now, images=(image,))


def _refused(event: CompletionRequested, code: str, message: str, at: datetime) -> Emit:
    error = JobError(code=code, message=message)
    return Emit((JobFinished.failed(event.job, error=error, at=at, rate_limit=event.rate_limit),))
