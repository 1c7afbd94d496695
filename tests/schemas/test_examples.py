"""Every topic has examples, and each of them is exactly what our own classes write and read."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from schemas import events, requests
from schemas.envelope import Attributes, first_header
from schemas.events import Event, JobAccepted, JobFinished
from schemas.examples import EXAMPLES, Example, read_examples
from schemas.topics import Catalog, Topic, event_type

TOPICS = {event_type(topic): topic for topic in Catalog.load()}
ALL = [pytest.param(kind, example, id=f"{kind}-{case}") for kind, cases in read_examples().items()
       for case, example in cases.items()]  # fmt: skip


def written_as(kind: str, example: Example) -> Topic:
    """The topic whose event it is; a dead letter's is the one that it was given up on."""
    return TOPICS[kind if kind != "dead-letters" else example.headers["ce_type"]]


def parsed(kind: str, example: Example) -> Event:
    event_class = written_as(kind, example).event_class()
    assert event_class is not None
    return event_class.model_validate(example.value)


@pytest.mark.parametrize("kind", TOPICS)
def test_a_topic_has_an_example(kind: str) -> None:
    assert read_examples().get(kind), f"put one into {EXAMPLES / kind}: a JSON file with key, headers and value"


def test_no_example_is_for_a_topic_that_does_not_exist() -> None:
    assert read_examples().keys() <= TOPICS.keys()


@pytest.mark.parametrize(("kind", "example"), ALL)
def test_an_example_is_what_its_event_reads_and_writes(kind: str, example: Example) -> None:
    assert parsed(kind, example).model_dump(mode="json", exclude_unset=True) == example.value


@pytest.mark.parametrize(("kind", "example"), ALL)
def test_the_headers_are_those_of_a_cloud_event(kind: str, example: Example) -> None:
    attributes = Attributes.parse(example.wire_headers())
    written = {name: (text or b"").decode() for name, text in attributes.headers()}
    extra = {"job-admitted": {"source-offset", "source-id"}, "dead-letters": set(example.headers) - set(written)}
    assert example.headers.keys() - written.keys() <= extra.get(kind, set())
    assert {name: example.headers[name] for name in written} == written
    assert attributes.type == event_type(written_as(kind, example))


@pytest.mark.parametrize(("kind", "example"), ALL)
def test_key_and_source_are_as_topics_yaml_says(kind: str, example: Example) -> None:
    topic, job = written_as(kind, example), example.value.get("job", example.value)
    assert example.key == job[topic.key]
    source, _, stage = example.headers["ce_source"].rpartition("/")
    if topic.name == "worker-heartbeat":
        stage = "worker"
    assert stage in topic.producers or "anyone" in topic.producers, source


@pytest.mark.parametrize("case", read_examples()["dead-letters"])
def test_a_dead_letter_says_why_it_is_one(case: str) -> None:
    headers = read_examples()["dead-letters"][case].wire_headers()
    told = [name for name, _ in headers if name.startswith("dlq-")]
    assert told == ["dlq-topic", "dlq-code", "dlq-reason", "dlq-stage", "dlq-attempts", "dlq-time", "dlq-outcome-id"]
    assert first_header(headers, "dlq-stage") in TOPICS["dead-letters"].producers


def test_each_kind_of_job_is_shown() -> None:
    shown = {example.value["kind"] for example in read_examples()["job-requested"].values()}
    assert shown == set(get_args(requests.JobKind))


def test_each_way_in_which_a_job_ends_is_shown() -> None:
    ends = set()
    for example in read_examples()["job-finished"].values():
        finished = JobFinished.model_validate(example.value)
        ends.add(finished.error.code if finished.error else (finished.result or {}).get("status", finished.status))
    assert ends >= {"completed", "refused", "rate-limited", "expired", "timeout", "no-such-provider", "unknown-user"}


def test_no_event_class_is_unused() -> None:
    used = {Event, JobAccepted}  # the base of all, and the first stage's input, which is never published
    for topic in TOPICS.values():
        if (event_class := topic.event_class()) is not None:
            used.update(reached_from(event_class))
    there = {found for found in vars(events).values() if isinstance(found, type) and issubclass(found, Event)}
    assert there - used == set()


def reached_from(found: Any) -> Iterator[type[Event]]:
    """The events in an annotation, with their bases and all that they carry."""
    if isinstance(found, type) and issubclass(found, Event):
        yield from (base for base in found.__mro__ if issubclass(base, Event))
        for field in found.model_fields.values():
            yield from reached_from(field.annotation)
    for argument in get_args(found):
        yield from reached_from(argument)
