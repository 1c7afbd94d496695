"""The public way in: reads a record of `job-requested`, whoever wrote it."""

import json
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from aiokafka.structs import ConsumerRecord
from pydantic import ValidationError

from processors.accept_job import accept_job, job_id_of
from schemas.caller import address_in
from schemas.envelope import Attributes, Envelope, InvalidEnvelopeError, first_header, is_uuid
from schemas.events import Job, JobAccepted, JobRequested, UserUpdated, utc_from_ms
from schemas.ids import JobIds
from schemas.redrive import RedriveMarks
from streams.decode import Undecodable
from streams.encode import validation_reason
from transport.table import CompactedTable
from transport.tokens import ExpiredTokenError, InvalidTokenError, Tokens

INVALID, NOT_AUTHORIZED = "invalid-event", "not-authorized"


class Entry:
    """Decodes `job-requested` for `sanitize_prompt`."""

    def __init__(
        self, users: CompactedTable[UserUpdated], job_ids: JobIds, redrives: RedriveMarks, *, expires_after_s: float,
        document_expires_after_s: float | None = None, training_expires_after_s: float | None = None,
        tokens: Tokens | None = None,
    ) -> None:  # fmt: skip
        """`tokens`: those that direct publishers must send; None where Kafka's ACLs are all that is asked."""
        self._users, self._job_ids, self._expires_after_s = users, job_ids, expires_after_s
        self._document_expires_after_s = document_expires_after_s
        self._training_expires_after_s = training_expires_after_s
        self._redrives, self._tokens = redrives, tokens

    def __call__(self, record: ConsumerRecord) -> Envelope[JobAccepted] | Undecodable:
        """The job, or why there is none; with it whose job ends, where that can be told."""
        try:
            attributes = Attributes.parse(record.headers)
        except InvalidEnvelopeError as error:
            return Undecodable(INVALID, str(error), None, None)
        try:
            requested = JobRequested.model_validate_json(record.value or b"")
        except ValidationError as error:
            reason = validation_reason(error.errors(include_input=False, include_context=False, include_url=False))
            job = self._job_of_a_broken(record, attributes)
            if (
                job is not None
                and self._tokens is not None
                and self._unauthorized(record, attributes, job, self._tokens)
            ):
                job = None  # whoever it is must not end jobs in another's name
            return Undecodable(INVALID, reason, attributes, job)
        event = accept_job(
            requested,
            attributes,
            accepted_at=utc_from_ms(record.timestamp),
            users=self._users.values,
            job_ids=self._job_ids,
            expires_after_s=self._expires_after_s,
            document_expires_after_s=self._document_expires_after_s,
            training_expires_after_s=self._training_expires_after_s,
            address=address_in(record.headers),
        )
        if (run := self._redrives.run(record.headers, event.job.job_id)) > 1:
            event = event.model_copy(update={"job": event.job.model_copy(update={"run": run})})
        if self._tokens is not None:
            refused = self._unauthorized(record, attributes, event.job, self._tokens)
            if refused is not None:
                return refused
        return Envelope(attributes, event, record.partition, record.offset)

    async def know_users(self, envelopes: list[Envelope[JobAccepted] | Undecodable]) -> bool:
        """Have read all of `user-updated` before a user is called unknown; True if that may have changed anything."""
        known: Mapping[str, UserUpdated] = self._users.values
        if all(isinstance(found, Undecodable) or found.payload.job.user_id in known for found in envelopes):
            return False
        await self._users.reach_end()
        return True

    def _unauthorized(
        self, record: ConsumerRecord, attributes: Attributes, job: Job, tokens: Tokens
    ) -> Undecodable | None:
        """Why a record may not ask in this user's name; None where it may.

        The time is the brokers' when they took the record: a redelivery gets the same verdict. Only a user whose token
        had run out is told of the job's end: nobody else is to make jobs in a user's list.
        """
        if is_uuid(attributes.event_id) == job.job_id or job.run > 1:
            return None  # under a MAC of the ingress: an id of its own, or an admin's redrive of what had passed here
        scheme, _, token = (first_header(record.headers, "authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            told = "the header authorization is missing: it must be `Bearer <token>`, a token of the user"
            return Undecodable(NOT_AUTHORIZED, told, attributes, None)
        try:
            claims = tokens.verify_at(token.strip(), record.timestamp / 1000)
        except ExpiredTokenError as error:
            told = "the token in the header authorization had expired when the brokers got the record"
            return Undecodable(NOT_AUTHORIZED, told, attributes, job if error.user_id == job.user_id else None)
        except InvalidTokenError:
            told = "the token in the header authorization is none of ours"
            return Undecodable(NOT_AUTHORIZED, told, attributes, None)
        user = self._users.values.get(job.user_id)
        if claims.user_id != job.user_id:
            told = "the token in the header authorization is another user's"
        elif user is not None and user.token_epoch > claims.epoch:
            told = "the token in the header authorization was revoked"
        else:
            return None
        return Undecodable(NOT_AUTHORIZED, told, attributes, None)

    def _job_of_a_broken(self, record: ConsumerRecord, attributes: Attributes) -> Job | None:
        """Who waits for an answer to a request that does not fit; None if it names no user that there is."""
        try:
            fields = json.loads(record.value or b"")
            user = self._users.values.get(fields["user_id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if user is None:
            return None
        job_id: UUID = job_id_of(user.user_id, attributes, self._job_ids)
        accepted_at = utc_from_ms(record.timestamp)
        return Job(
            job_id=job_id,
            run=self._redrives.run(record.headers, job_id),
            user_id=user.user_id,
            role=user.role,
            kind="chat",
            accepted_at=accepted_at,
            expires_at=accepted_at + timedelta(seconds=self._expires_after_s),
        )
