"""Every topic has an event, somebody who writes it and somebody who reads it."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas import events
from schemas.events import Event, JobEvent
from schemas.topics import Catalog, event_type

ROOT = Path(__file__).parent.parent.parent
# Whoever is named in topics.yaml and is no stage.
OTHERS = {"ingress", "anyone", "worker", "operator", "setup", "doctor", "follower", "recover", "sink"}


def stages() -> set[str]:
    names = ("assistant", "knowledge", "speech", "examples", "training", "agents")
    pipeline = "".join((ROOT / "streams" / f"{name}.py").read_text() for name in names)
    return set(re.findall(r'name="([a-z_]+)"', pipeline)) | set(
        re.findall(r'full_name\("[^"]+"\), "([a-z_]+)"', pipeline)
    )


@pytest.mark.parametrize("topic", list(Catalog.load()), ids=lambda topic: topic.name)
def test_a_topic_is_used_as_it_is_described(topic) -> None:
    assert topic.description
    assert set(topic.producers) | set(topic.consumers) <= stages() | OTHERS
    if topic.name == "dead-letters":
        assert topic.event_class() is None
        return
    event = topic.event_class()
    assert event is not None
    assert issubclass(event, Event)
    noun, *participles = re.findall("[A-Z][a-z]+", event.__name__)
    assert event_type(topic) == "-".join([noun, *participles]).lower()
    assert topic.retention_ms or topic.cleanup == "compact"


def test_every_event_of_a_job_has_a_topic() -> None:
    on_topics = {topic.event for topic in Catalog.load()}
    bases = (JobEvent, events.RequestEvent, events.WorkEvent)
    carried = {
        name for name, found in vars(events).items()
        if isinstance(found, type) and issubclass(found, JobEvent) and found not in bases
    }  # fmt: skip
    assert carried - on_topics == {"JobAccepted"}  # the first stage's input, never published


def test_each_provider_gets_a_topic_and_the_prefix_is_in_front() -> None:
    deployed = Catalog.load(prefix="staging.").deployed(["openai", "local"])
    assert {"staging.completion-requested-openai", "staging.completion-requested-local"} <= deployed.keys()
    assert all(name.startswith("staging.") for name in deployed)


def test_co_partitioned_topics_have_the_same_number_of_partitions() -> None:
    catalog = Catalog.load()
    assert catalog["prompt-sanitized"].partitions == catalog["job-admitted"].partitions


def test_an_unknown_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "topics.yaml"
    file.write_text(
        "a-b: {description: d, event: null, key: job_id, producers: [], consumers: [], partitions: 1, color: x}"
    )
    with pytest.raises(ValidationError, match="color"):
        Catalog.load(path=file)
