"""The first step of the gate: whose job a request is, which id it has, and until when it is good."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from schemas.envelope import Attributes, is_uuid
from schemas.events import Job, JobAccepted, JobRequested, UserUpdated
from schemas.ids import JobIds, direct_job_id
from schemas.requests import DocumentRequest, TrainingRequest


def accept_job(
    requested: JobRequested,
    attributes: Attributes,
    *,
    accepted_at: datetime,
    users: Mapping[str, UserUpdated],
    job_ids: JobIds,
    expires_after_s: float,
    document_expires_after_s: float | None = None,
    training_expires_after_s: float | None = None,
    address: str | None = None,
) -> JobAccepted:
    """The request as a job.

    Args:
        requested: What was asked.
        attributes: Of its record; the id decides which job it is.
        accepted_at: The broker's append time.
        users: All known users; the role of one who is unknown is `user`, and `sanitize_prompt` ends the job.
        job_ids: Tells an id that the ingress made for this user.
        expires_after_s: Where the request does not say it.
        document_expires_after_s: The same of documents.
        training_expires_after_s: The same of trainings.
        address: What the record says of its caller's; believed of what an ingress of ours has sent.
    """
    user = users.get(requested.user_id)
    made = made_here(requested.user_id, attributes, job_ids)
    if isinstance(requested.request, DocumentRequest):
        expires_after_s = requested.request.timeout or document_expires_after_s or expires_after_s
    if isinstance(requested.request, TrainingRequest):
        expires_after_s = requested.request.timeout or training_expires_after_s or expires_after_s
    expires_after = requested.expires_after or expires_after_s
    job = Job(
        job_id=made or _derived(requested.user_id, attributes),
        user_id=requested.user_id,
        role=user.role if user else "user",
        kind=requested.kind,
        callback_url=requested.callback_url,
        accepted_at=accepted_at,
        expires_at=accepted_at + timedelta(seconds=expires_after),
        metadata=requested.metadata,
    )
    if made is None:
        return JobAccepted(job=job, request=requested.request)
    return JobAccepted(job=job, request=requested.request, source="rest", address=address)


def job_id_of(user_id: str, attributes: Attributes, job_ids: JobIds) -> UUID:
    """The id that the ingress made, if it is one of this user; else derived from the publisher's own."""
    return made_here(user_id, attributes, job_ids) or _derived(user_id, attributes)


def made_here(user_id: str, attributes: Attributes, job_ids: JobIds) -> UUID | None:
    """The id that the ingress made, if it is one of this user."""
    made = is_uuid(attributes.event_id)
    return made if made is not None and job_ids.belongs(made, user_id) else None


def _derived(user_id: str, attributes: Attributes) -> UUID:
    return direct_job_id(attributes.source, user_id, attributes.event_id)
