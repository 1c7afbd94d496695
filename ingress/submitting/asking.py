"""Ask, and listen to the answer from before its job is published: for every route that streams."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from ingress.http.bodies import Sent
from ingress.http.problems import Problem, rate_limit_headers
from ingress.outcome import Outcome
from ingress.services import Services
from ingress.streaming import Listening, listen
from ingress.submitting.idempotency import REPLAYED
from ingress.submitting.submission import NO_METADATA
from schemas.events import UserUpdated
from schemas.ids import JobIds
from schemas.requests import AnyRequest


async def ask_and_listen(
    sent: Sent[Any],
    asked: AnyRequest,
    user: UserUpdated,
    found: Services,
    *,
    refuse: Callable[[UUID, Outcome], object],
    metadata: Mapping[str, str] = NO_METADATA,
) -> tuple[UUID, Listening, dict[str, str]]:
    """A job, its listener, and headers for the answer.

    Args:
        sent: The body with its key and its image.
        asked: What of it is the job's request.
        user: Who asks.
        found: The services.
        refuse: Raises where a job that has ended at once is not to be streamed.
        metadata: Kept with the job.

    Raises:
        Problem: As `Submissions.accepted`, `listen` and `refuse`; nobody listens then.
    """
    heard: list[Listening] = []

    def follow(job_id: UUID, is_new: bool) -> None:
        try:
            since_ms = None if is_new else float(JobIds.minted_at_ms(job_id))
            heard.append(listen(found, job_id, user, after=None, since_ms=since_ms))
        except Problem as problem:
            if is_new:  # it was not published: there is no job to look at
                raise Problem(problem.status, problem.code, problem.detail, headers={"Retry-After": "2"}) from None
            raise

    try:
        job_id, outcome, standing, replayed = await found.submissions.accepted(
            user, asked, callback_url=None, keyed=sent.key, follow=follow, metadata=metadata, upload=sent.upload
        )
        if outcome is not None:
            refuse(job_id, outcome)
    except BaseException:
        for listening in heard:
            listening.close()
        raise
    return job_id, heard[0], {**rate_limit_headers(standing), **(REPLAYED if replayed else {})}
