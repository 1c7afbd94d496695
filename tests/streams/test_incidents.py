"""Which dead letters are incidents, too."""

from types import SimpleNamespace
from typing import Any

from schemas.envelope import Attributes, Record, first_header
from schemas.events import Job, SecurityIncidentDetected
from schemas.topics import Catalog
from streams.bad_luck import BadLuck
from streams.cancellations import Cancellations
from streams.decode import Undecodable
from streams.encode import Encoder
from streams.serve import StageServer
from tests.factories import NOW, job


def outputs(
    code: str, attributes: Attributes | None, of: Job | None, *, offset: int = 5, value: bytes | None = b"v"
) -> list[Record]:
    app: Any = SimpleNamespace(lanes={"job-requested": SimpleNamespace(luck=BadLuck("s"))})
    server = StageServer(app, Encoder(Catalog.load(prefix="p.")), max_retries=0, cancellations=Cancellations({}))
    record: Any = SimpleNamespace(
        topic="job-requested", partition=0, offset=offset, key=b"k", value=value, headers=(), timestamp=1_000
    )
    return server._undecodable(record, Undecodable(code, "no", attributes, of), "sanitize_prompt", NOW)


def incident(records: list[Record]) -> tuple[str | None, SecurityIncidentDetected]:
    (found,) = [record for record in records if record.topic == "p.security-incident-detected"]
    assert found.key is not None
    event = SecurityIncidentDetected.model_validate_json(found.value or b"")
    assert found.key == event.user_id.encode()
    return first_header(found.headers, "ce_id"), event


def test_whoever_writes_without_being_allowed_to_is_an_incident_beside_the_dead_letter() -> None:
    of = job()
    records = outputs("not-authorized", Attributes("e-1", "/shop", "job-requested"), of)
    assert [record.topic for record in records][:2] == ["p.job-finished", "p.dead-letters"]
    _, event = incident(records)
    assert (event.user_id, event.reason, event.stage) == ("alice", "not-authorized", "sanitize_prompt")
    assert (event.job_id, event.source, event.excerpt) == (of.job_id, "kafka", "")


def test_one_that_names_nobody_is_told_by_its_place_and_a_redelivery_is_the_same_one() -> None:
    first, again, other = (incident(outputs("not-authorized", None, None, offset=n))[0] for n in (5, 5, 6))
    assert first == again != other
    assert incident(outputs("not-authorized", None, None))[1].user_id == ""


def test_other_dead_letters_are_none() -> None:
    assert len(outputs("invalid-event", Attributes("e-1", "/shop", "job-requested"), job())) == 2
    assert len(outputs("invalid-event", None, None)) == 1


def test_of_one_without_a_job_the_user_is_the_one_that_it_names() -> None:
    attributes = Attributes("e-1", "/shop", "job-requested")
    for value, named in (
        (b'{"user_id": "alice"}', "alice"), (b'{"user_id": 7}', ""), (b"[]", ""), (b"\xff", ""), (None, ""),
        (b'{"user_id": "%b"}' % (b"x" * 129), ""),
    ):  # fmt: skip
        assert incident(outputs("not-authorized", attributes, None, value=value))[1].user_id == named
