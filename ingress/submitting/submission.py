"""From a request to a job: checked, published, and waited for."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from ingress.access.caller import caller_address
from ingress.access.standings import Standings, check_quarantine
from ingress.adapters import AdapterChecks
from ingress.files import Files, ReceivedFile
from ingress.follower import Follower, Watch
from ingress.http.problems import Problem
from ingress.http.uploads import Upload
from ingress.outcome import Outcome, in_one_order
from ingress.publisher import NotAcceptedError, OutcomeUnknownError, Publisher
from ingress.submitting.asked_providers import AskedProviders, generation_of
from ingress.submitting.backpressure import STAGES, Backpressure
from ingress.submitting.cancel_requests import CancelRequests
from ingress.submitting.idempotency import Idempotency, Keyed, Turn
from ingress.submitting.images import Images
from ingress.voices import SpeechOffers
from processors.route_job import NOT_ALLOWED, ONLY_ADMINS_SIMULATE
from schemas.caller import address_headers
from schemas.envelope import Attributes, Record
from schemas.events import JobRequested, ProviderOffer, RateLimit, UserUpdated
from schemas.ids import JobIds
from schemas.requests import (
    AnyRequest,
    ChatRequest,
    DocumentRequest,
    ImageReference,
    TrainingRequest,
    kind_of,
)
from sinks.egress_targets import NOTHING_ELSE, Allowed, EgressRefusedError, check_url

logger = logging.getLogger(__name__)

SYNC_GRACE_S = 5.0  # for the way there and back, over the job's own timeout
NO_METADATA: Mapping[str, str] = {}
Follow = Callable[[UUID, bool], None]
Sent = Upload | ReceivedFile | None
Left = Callable[[], Coroutine[Any, Any, None]]  # returns once the caller has gone


@dataclass(frozen=True, slots=True)
class Rules:
    """What the ingress itself decides."""

    topic: str
    allowed_providers: Sequence[str]
    default_timeout_s: float
    admission_wait_s: float
    expires_after_s: float
    document_expires_after_s: float
    callback_allow_private: bool
    callback_allowed: Allowed = NOTHING_ELSE
    training_expires_after_s: float = 14_400.0


class Submissions:
    """Publishes `job-requested` and waits as long as the caller wants."""

    def __init__(
        self, publisher: Publisher, follower: Follower, job_ids: JobIds, rules: Rules,
        *, cancel_requests: CancelRequests, present_providers: Callable[[], Sequence[str]],
        idempotency: Idempotency, backpressure: Backpressure, images: Images, files: Files, standings: Standings,
        offers: Callable[[], Mapping[str, Sequence[ProviderOffer]]] = dict, speech: SpeechOffers | None = None,
        adapters: AdapterChecks | None = None,
    ) -> None:  # fmt: skip
        """`present_providers`: those that live workers can reach; `offers`: what is known of them, by name."""
        self._adapters = adapters
        self.asked = AskedProviders(
            allowed=rules.allowed_providers, present=present_providers, offers=offers, speech=speech
        )  # fmt: skip
        self._publisher, self._follower, self._job_ids, self._rules = publisher, follower, job_ids, rules
        self._cancel_requests = cancel_requests
        self._idempotency, self._backpressure, self._images = idempotency, backpressure, images
        self._files, self._standings = files, standings
        self.draining = False

    # --- the two ways to ask ---

    async def answered(
        self, user: UserUpdated, request: AnyRequest, *, keyed: Keyed | None = None, left: Left | None = None,
        metadata: Mapping[str, str] = NO_METADATA, upload: Sent = None,
    ) -> tuple[UUID, Outcome]:  # fmt: skip
        """Wait for the outcome; with a key that was used before, for that of the job that there is.

        Args:
            user: Who asks.
            request: What.
            keyed: The request's key.
            left: Returns once the caller has gone, whose job is then cancelled; None: it is not.
            metadata: Kept with the job.
            upload: The request's image where it came with it, which is stored before anything is published, and let
                go; or its file, which is stored already, and then belongs to the job.

        Raises:
            Problem: It was refused, not accepted, did not come in time, or nobody waits for it any more.
        """
        timeout = request.timeout or self._waits_for_s(request)
        requested = JobRequested(
            user_id=user.user_id, kind=kind_of(request), request=request, expires_after=timeout, metadata=dict(metadata)
        )
        turn = await self._turn(user, request, keyed, is_counted=isinstance(upload, ReceivedFile))
        job_id = turn.job_id
        if turn.outcome is not None:
            return job_id, in_one_order(turn.outcome)
        await self._keep(user, request, turn, upload)
        with self._published(user, requested, turn, address=caller_address()) as (watch, publishing):
            await self._accepted(user, turn, publishing, upload)
            if await _left_before(watch.finished, left, timeout_s=timeout + SYNC_GRACE_S):
                await self.cancel_unless_needed(user, job_id)
                raise Problem(499, "caller-left", "the caller closed the connection")
            if not watch.finished.done():
                raise Problem(
                    504, "timeout", "there was no answer in time; look at the job later, or allow more with `timeout`",
                    headers=_location(job_id), job_id=str(job_id),
                )  # fmt: skip
            outcome = watch.finished.result()
        await self._idempotency.ended(user.user_id, turn, outcome)
        if outcome.rate_limit is None and watch.verdict.done():
            outcome = replace(outcome, rate_limit=watch.verdict.result())
        if not turn.replayed:
            self._standings.heard(user.user_id, outcome.rate_limit)
        outcome = replace(outcome, replayed=turn.replayed)
        return job_id, outcome if keyed is None else in_one_order(outcome)

    async def accepted(
        self, user: UserUpdated, request: AnyRequest, *, callback_url: str | None, keyed: Keyed | None = None,
        follow: Follow | None = None, metadata: Mapping[str, str] = NO_METADATA, upload: Sent = None,
    ) -> tuple[UUID, Outcome | None, RateLimit | None, bool]:  # fmt: skip
        """Wait only for the gate's verdict, and not long.

        Args:
            user: Who asks.
            request: What.
            callback_url: Where the outcome goes.
            keyed: The request's key.
            follow: Told of the job, and whether it is new, before it is published; its caller waits for the answer,
                so the job is good for as long as that of a waiting call.
            metadata: Kept with the job.
            upload: As for `answered`.

        Returns:
            The job, its outcome where it came by then, the user's rate, and whether it was asked for before.

        Raises:
            Problem: It was refused or not accepted.
        """
        self._check_callback(callback_url)
        timeout = None if follow is None else request.timeout or self._rules.default_timeout_s
        requested = JobRequested(
            user_id=user.user_id, kind=kind_of(request), request=request, callback_url=callback_url,
            expires_after=timeout, metadata=dict(metadata),
        )  # fmt: skip
        turn = await self._turn(user, request, keyed, is_counted=isinstance(upload, ReceivedFile))
        if follow is not None:
            try:
                follow(turn.job_id, not turn.replayed)
            except Problem:
                if turn.publish:
                    await self._idempotency.not_accepted(user.user_id, turn)
                raise
        if not turn.publish:
            return turn.job_id, _told_again(turn.outcome), None, True
        await self._keep(user, request, turn, upload)
        with self._published(user, requested, turn, address=caller_address()) as (watch, publishing):
            await self._accepted(user, turn, publishing, upload)
            await asyncio.wait({watch.verdict}, timeout=self._rules.admission_wait_s)
            standing = watch.verdict.result() if watch.verdict.done() else None
            outcome = watch.finished.result() if watch.finished.done() else None
        self._standings.heard(user.user_id, standing)
        await self._idempotency.ended(user.user_id, turn, outcome)
        return turn.job_id, outcome if keyed is None else _told_again(outcome), standing, turn.replayed

    async def publish_as(
        self, user: UserUpdated, request: AnyRequest, *, job_id: UUID, metadata: dict[str, str], is_repeated: bool
    ) -> RateLimit | None:
        """Publish a job whose id somebody keeps, so that to do it again makes no second one.

        Args:
            user: Whose job.
            request: What is asked.
            job_id: Minted for the user.
            metadata: The job's.
            is_repeated: It may have been accepted before: then there is nothing to check.

        Returns:
            The user's rate, where the gate's verdict came in time.

        Raises:
            Problem: It was refused or not accepted, or (`outcome-unknown`) may have been.
        """
        if not is_repeated:
            self._check(user, request)
        requested = JobRequested(user_id=user.user_id, kind=kind_of(request), request=request, metadata=metadata)
        turn = Turn(job_id, replayed=is_repeated)
        with self._published(user, requested, turn, address=None) as (watch, publishing):  # no call is at hand
            await self._accepted(user, turn, publishing)
            await asyncio.wait({watch.verdict}, timeout=self._rules.admission_wait_s)
            standing = watch.verdict.result() if watch.verdict.done() else None
        self._standings.heard(user.user_id, standing)
        return standing

    def count(self, user: UserUpdated) -> None:
        """Count a call that costs something beside jobs.

        Raises:
            Problem: The user makes far more of them than the limit allows.
        """
        self._standings.take(user)

    # --- steps ---

    async def _turn(self, user: UserUpdated, request: AnyRequest, keyed: Keyed | None, *, is_counted: bool) -> Turn:
        """Whether there is anything to publish; what was asked before is not checked again."""

        def mint() -> UUID:
            return self._job_ids.mint(user.user_id)

        if keyed is None:
            self._check(user, request, is_counted=is_counted)
            return Turn(mint())
        return await self._idempotency.turn(
            user.user_id, keyed, mint=mint, check=lambda: self._check(user, request, is_counted=is_counted)
        )  # fmt: skip

    @contextmanager
    def _published(
        self, user: UserUpdated, requested: JobRequested, turn: Turn, *, address: str | None
    ) -> "Iterator[tuple[Watch, asyncio.Future[None] | None]]":
        with self._follower.watch(turn.job_id) as watch:
            if not turn.publish:
                yield watch, None
                return
            attributes = Attributes(str(turn.job_id), "/ingress", "job-requested")
            value = requested.model_dump_json(exclude_none=True).encode()
            headers = [*attributes.headers(), *address_headers(address)]
            record = Record(self._rules.topic, user.user_id.encode(), value, headers)
            good_for_s = requested.expires_after or self._good_for_s(requested.request)
            self._standings.began(user.user_id, turn.job_id, good_for_s=good_for_s, may_have_ended=turn.replayed)
            yield watch, asyncio.ensure_future(self._publisher.publish(record))

    async def _keep(self, user: UserUpdated, request: AnyRequest, turn: Turn, upload: Sent) -> None:
        """See to it that image, file or adapter is there; where it is not, nothing is published and the key is free."""
        image = _image_of(request)
        try:
            if not turn.publish:
                return
            if self._adapters is not None:
                await self._adapters.check(user, request)
            if isinstance(upload, ReceivedFile):
                await self._files.claim(user, upload, turn.job_id)
            elif upload is not None:
                await self._images.keep(user, upload, job_id=turn.job_id)
            elif image is not None:
                await self._images.check(user, image)
        except Problem:
            await self._idempotency.not_accepted(user.user_id, turn)
            raise
        finally:
            if isinstance(upload, Upload):
                upload.let_go()  # whoever waits for the answer does not hold it

    async def _accepted(
        self, user: UserUpdated, turn: Turn, publishing: "asyncio.Future[None] | None", upload: Sent = None
    ) -> None:
        if publishing is None:
            return
        try:
            await publishing
        except NotAcceptedError as error:
            self._standings.not_accepted(turn.job_id)
            await self._idempotency.not_accepted(user.user_id, turn)
            if isinstance(upload, ReceivedFile):
                upload.is_claimed = False
            elif upload is not None:
                await self._images.forget(user, upload.reference)
            raise _unavailable(f"{error}; nothing was accepted, try again") from None
        except OutcomeUnknownError:
            raise Problem(
                504, "outcome-unknown", "the job may have been accepted: look at it before you send it again",
                headers=_location(turn.job_id), job_id=str(turn.job_id),
            ) from None  # fmt: skip
        await self._idempotency.accepted(user.user_id, turn)

    async def cancel_unless_needed(self, user: UserUpdated, job_id: UUID) -> None:
        """The caller has left: nobody wants the job unless others wait too, or this replica is what ends the call."""
        if self.draining or self._follower.waiters(job_id) > 1:
            return
        try:
            await self._cancel_requests.publish(job_id, user.user_id)
        except (NotAcceptedError, OutcomeUnknownError) as error:  # it then runs to its end, or its timeout
            logger.warning("job %s is not cancelled, although its caller left: %s", job_id, error)

    def check_ahead(self, user: UserUpdated, wanted: Sequence[str]) -> None:
        """Before a large body is read: count the call, and look at whatever can be known without the body.

        Raises:
            Problem: It would be refused.
        """
        self._check_user(user, is_counted=False)
        self.asked.check_named(wanted, None)

    def _check_user(self, user: UserUpdated, *, is_counted: bool) -> None:
        if self.draining:
            raise _unavailable("this replica is stopping; try again")
        check_quarantine(user)
        if not is_counted:
            self._standings.take(user)
        self._standings.check_pending(user)

    def _waits_for_s(self, request: AnyRequest) -> float:
        if isinstance(request, DocumentRequest):
            return self._rules.document_expires_after_s
        return self._rules.default_timeout_s

    def _good_for_s(self, request: AnyRequest) -> float:
        if isinstance(request, DocumentRequest):
            return request.timeout or self._rules.document_expires_after_s
        if isinstance(request, TrainingRequest):
            return request.timeout or self._rules.training_expires_after_s
        return self._rules.expires_after_s

    def _check(self, user: UserUpdated, request: AnyRequest, *, is_counted: bool = False) -> None:
        self._check_user(user, is_counted=is_counted)
        generation = generation_of(request)
        if generation is not None and generation.simulate_failure is not None and user.role != "admin":
            raise Problem(403, NOT_ALLOWED, ONLY_ADMINS_SIMULATE)
        self.asked.check(request)
        wanted = request.providers
        for stage in STAGES.get(kind_of(request), ()):
            self._backpressure.check(wanted[0] if wanted else None, stage=stage)

    def _check_callback(self, url: str | None) -> None:
        if url is None:
            return
        try:
            check_url(url, allow_private=self._rules.callback_allow_private, allowed=self._rules.callback_allowed)
        except EgressRefusedError as error:
            raise Problem(400, "callback-refused", f"callback_url: {error}") from None


def _told_again(outcome: Outcome | None) -> Outcome | None:
    return None if outcome is None else in_one_order(outcome)


def _image_of(request: AnyRequest) -> ImageReference | None:
    return request.image if isinstance(request, ChatRequest) else None


async def _left_before(finished: "asyncio.Future[Outcome]", left: Left | None, *, timeout_s: float) -> bool:
    """Wait for the outcome; True if the caller left before it."""
    if left is None:
        await asyncio.wait({finished}, timeout=timeout_s)
        return False
    leaving = asyncio.create_task(left())
    try:
        either: set[asyncio.Future[Any]] = {finished, leaving}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return leaving.done() and not finished.done()
    finally:
        leaving.cancel()


def _location(job_id: UUID) -> dict[str, str]:
    return {"Location": f"/jobs/{job_id}"}


def _unavailable(detail: str) -> Problem:
    return Problem(503, "not-accepted", detail, headers={"Retry-After": "2"})
