"""Submissions with brokers that answer at once, and what comes with a request; the fixture `desk` is one of them."""

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from ingress.access import standings
from ingress.access.standings import Standings, UserRules
from ingress.files import Files
from ingress.follower import Follower
from ingress.http.problems import Problem
from ingress.http.uploads import Place, Upload, upload_of
from ingress.publisher import Publisher
from ingress.submitting.backpressure import Backpressure
from ingress.submitting.idempotency import Idempotency
from ingress.submitting.images import Images
from ingress.submitting.submission import Rules, Submissions
from processors.limits.usage import Usage
from schemas.envelope import Record
from schemas.events import ProviderOffer, UserUpdated
from schemas.ids import JobIds
from sinks.payloads import Payload, PayloadStore
from sinks.pool import Pool
from tests.conftest import SECRET
from tests.factories import NOW, chat_request
from tests.pictures import GIF
from transport.clients import KafkaAccess

NOWHERE = KafkaAccess("127.0.0.1:1")
WINDOW_S, USER_LIMIT, ADMIN_LIMIT = 60, 5, 10


class RecordingPublisher(Publisher):
    """Has brokers that answer at once. `published`: what was handed over."""

    def __init__(self) -> None:
        super().__init__(NOWHERE, timeout_s=1)
        self.published: list[Record] = []

    async def publish(self, record: Record) -> None:
        self.published.append(record)


class Desk:
    """Submissions with a clock that is moved by hand."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, callback_allow_private: bool = False, max_pending: int | None = None
    ) -> None:
        rules = Rules(
            topic="job-requested", allowed_providers=("openai", "local"), default_timeout_s=30, admission_wait_s=0,
            expires_after_s=3600, document_expires_after_s=7200, callback_allow_private=callback_allow_private,
        )  # fmt: skip
        self.usage = Usage()
        of_users = UserRules(window_s=WINDOW_S, user_limit=USER_LIMIT, admin_limit=ADMIN_LIMIT, max_pending=max_pending)
        self.standings = Standings(of_users, self.usage)
        self.publisher, self.now = RecordingPublisher(), 1000.0
        self.database = Pool("postgresql://nobody:nothing@127.0.0.1:1/nothing", size=1)
        self.images = Images(PayloadStore(self.database), user_bytes=1_000)
        self.files = Files(PayloadStore(self.database), user_bytes=1_000, max_upload_mb=1)
        self.present = ["openai"]
        self.offers: dict[str, list[ProviderOffer]] = {}
        follower = Follower(NOWHERE, progressed="job-progressed", finished="job-finished", store=None)
        monkeypatch.setattr(standings, "monotonic", lambda: self.now)
        nobody: Any = None  # no request here has a key
        self.submissions = Submissions(
            self.publisher, follower, JobIds([SECRET]), rules, present_providers=lambda: self.present,
            cancel_requests=nobody,
            offers=lambda: self.offers,
            images=self.images,
            files=self.files,
            standings=self.standings,
            idempotency=Idempotency(nobody, publish_timeout_s=1),
            backpressure=Backpressure(max_wait_s=300, allowed=("openai",), default=None),
        )  # fmt: skip

    async def ask(self, user: UserUpdated, callback_url: str | None = None) -> UUID:
        job_id, *_ = await self.submissions.accepted(user, chat_request(), callback_url=callback_url)
        return job_id

    async def refused(self, user: UserUpdated, callback_url: str | None = None) -> Problem:
        before = len(self.publisher.published)
        with pytest.raises(Problem) as caught:
            await self.ask(user, callback_url)
        assert len(self.publisher.published) == before
        return caught.value


class Seen:
    """An upload that says whether its place was left."""

    def __init__(self) -> None:
        self.left = 0
        self.upload: Upload = upload_of(GIF)
        self.upload.place = Place(self._leave)

    def _leave(self) -> None:
        self.left += 1

    def request(self, **more: Any) -> Any:
        return chat_request(image=self.upload.reference, **more)


class FakeStore(PayloadStore):
    """`kept`: what it was given; `deleted`: what was taken back."""

    def __init__(self, error: Exception | None = None, known: bool = False) -> None:
        self._error, self._known = error, known
        self.kept: list[Payload] = []
        self.deleted: list[UUID] = []

    async def store(self, payload: Payload, *, user_bytes: int) -> datetime:
        if self._error is not None:
            raise self._error
        self.kept.append(payload)
        return NOW

    async def size(self, payload_id: UUID, *, user_id: str) -> int | None:
        return len(GIF) if self._known else None

    async def delete(self, payload_id: UUID, *, user_id: str) -> bool:
        self.deleted.append(payload_id)
        return True
