"""The topics as an AsyncAPI 3.0 document and as a page for people: `python -m schemas.asyncapi` writes both to docs/.

All of it comes from `topics.yaml`, the event classes and the examples, so it can say nothing else than they do.
Source: AsyncAPI 3.0.0; Kafka bindings 0.5.0.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import models_json_schema

from schemas.events import Event
from schemas.examples import Example, read_examples
from schemas.topics import PROVIDER, Catalog, Topic, event_type

ROOT = Path(__file__).parent.parent
DOCUMENT, PAGE = ROOT / "docs" / "asyncapi.yaml", ROOT / "docs" / "topics.md"
BINDING_VERSION = "0.5.0"
# Named in topics.yaml, and not a part of the product.
OUTSIDE = {"anyone", "operator"}
DAY_MS = 86_400_000

Examples = Mapping[str, Mapping[str, Example]]

HEADERS: dict[str, Any] = {
    "type": "object",
    "description": "CloudEvents 1.0, Kafka protocol binding, binary mode. Unknown headers are handed on to nobody.",
    "required": ["ce_id", "ce_source", "ce_specversion", "ce_type"],
    "properties": {
        "ce_id": {
            "type": "string", "maxLength": 256,
            "description": "With ce_source it names the event: what has the same id is the same event, however often "
            "it is delivered.",
        },
        "ce_source": {"type": "string", "maxLength": 256, "description": "Who says it: a URI reference."},
        "ce_specversion": {"const": "1.0"},
        "ce_type": {"type": "string", "description": "The topic's name without prefix and provider."},
        "ce_time": {
            "type": "string", "format": "date-time",
            "description": "Only informative: where time counts it is the broker's time of appending.",
        },
        "ce_causationid": {"type": "string", "description": "ce_id of the event that this one follows from."},
        "content-type": {"type": "string", "examples": ["application/json"]},
        "traceparent": {"type": "string", "description": "W3C Trace Context; handed on from event to event."},
        "tracestate": {"type": "string", "description": "W3C Trace Context; handed on from event to event."},
    },
}  # fmt: skip
ADMISSION_HEADERS = {
    "source-offset": "Offset of the admitted request on prompt-sanitized, on the same partition number.",
    "source-id": "ce_id of the admitted request.",
}
DEAD_LETTER_HEADERS = {
    "dlq-topic": "Where the record was read from.",
    "dlq-code": "Why it can never work: a stable fact.",
    "dlq-reason": "The same for people; holds no prompt text.",
    "dlq-stage": "Which stage gave it up.",
    "dlq-attempts": "How often it was tried.",
    "dlq-time": "When it was given up.",
    "dlq-outcome-id": "ce_id of the job-finished that ended its job, where there is a job.",
}
KEYS: dict[str, dict[str, Any]] = {
    "user_id": {"type": "string", "description": "The user."},
    "job_id": {"type": "string", "format": "uuid", "description": "The job: all of its events stay in order."},
    "worker": {"type": "string", "description": "The worker's name."},
    "as it came": {"type": "string", "description": "Of the record that was given up."},
}


def asyncapi(catalog: Catalog, examples: Examples, *, version: str, description: str) -> dict[str, Any]:
    """The document.

    Args:
        catalog: The topics.
        examples: By `ce_type` and case.
        version: Of the product.
        description: What it is, in a sentence.
    """
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "assistant-stream",
            "version": version,
            "description": f"{description}. Every topic is a public interface: anyone may read it, and job-requested "
            "is the way in. Events ignore unknown fields.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "The deployment's cluster: KAFKA_BOOTSTRAP_SERVERS.",
                "variables": {"bootstrap": {"default": "localhost:9092", "description": "host:port"}},
            }
        },
        "channels": {event_type(topic): _channel(topic) for topic in catalog},
        "operations": {name: operation for topic in catalog for name, operation in _operations(topic).items()},
        "components": {
            "messages": {event_type(topic): _message(topic, examples.get(event_type(topic), {})) for topic in catalog},
            "schemas": {"CloudEventHeaders": HEADERS, **_schemas(catalog)},
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    configuration: dict[str, Any] = {
        "cleanup.policy": topic.cleanup.split(","),
        "max.message.bytes": topic.max_message_bytes,
        "message.timestamp.type": topic.timestamp,
    }
    if topic.retention_ms is not None:
        configuration["retention.ms"] = topic.retention_ms
    channel: dict[str, Any] = {
        "address": topic.name,
        "description": " ".join(topic.description.split()),
        "messages": {event_type(topic): {"$ref": f"#/components/messages/{event_type(topic)}"}},
        "bindings": {
            "kafka": {
                "partitions": topic.partitions,
                "topicConfiguration": configuration,
                "bindingVersion": BINDING_VERSION,
            }
        },
    }
    if PROVIDER in topic.name:
        channel["parameters"] = {
            "provider": {
                "description": "One of ALLOWED_PROVIDERS; each has a topic of its own.",
                "examples": ["openai", "local"],
            }
        }
    return channel


def _operations(topic: Topic) -> dict[str, Any]:
    sides = [("send", "sends", name) for name in topic.producers]
    sides += [("receive", "receives", name) for name in topic.consumers]
    return {
        f"{party}-{verb}-{event_type(topic)}": {
            "action": action,
            "summary": f"{party} {verb} {event_type(topic)}",
            "tags": [{"name": "outside" if party in OUTSIDE else party}],
            "channel": {"$ref": f"#/channels/{event_type(topic)}"},
            "messages": [{"$ref": f"#/channels/{event_type(topic)}/messages/{event_type(topic)}"}],
        }
        for action, verb, party in sides
    }


def _message(topic: Topic, examples: Mapping[str, Example]) -> dict[str, Any]:
    kind = event_type(topic)
    payload: dict[str, Any] = {"description": "The value of the record that was given up, untouched."}
    if topic.event is not None:
        payload = {"$ref": f"#/components/schemas/{topic.event}"}
    return {
        "name": kind,
        "title": topic.event or "Any record",
        "summary": " ".join(topic.description.split()),
        "contentType": "application/json",
        "headers": _headers(topic),
        "payload": payload,
        "bindings": {"kafka": {"key": KEYS[topic.key], "bindingVersion": BINDING_VERSION}},
        "examples": [
            {"name": case, "headers": example.headers, "payload": example.value} for case, example in examples.items()
        ],
    }


def _headers(topic: Topic) -> dict[str, Any]:
    common = {"$ref": "#/components/schemas/CloudEventHeaders"}
    if topic.event is None:
        return _and(common, {}, DEAD_LETTER_HEADERS)
    own = {"ce_type": {"const": event_type(topic)}}
    return _and(common, own, ADMISSION_HEADERS if topic.name == "job-admitted" else {})


def _and(common: dict[str, Any], own: dict[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    told = {name: {"type": "string", "description": text} for name, text in texts.items()}
    return {"type": "object", "allOf": [common, {"type": "object", "properties": {**own, **told}}]}


def _schemas(catalog: Catalog) -> dict[str, Any]:
    events = [event for topic in catalog if (event := topic.event_class()) is not None]
    inputs: list[tuple[type[Event], Any]] = [(event, "validation") for event in events]
    _, schema = models_json_schema(inputs, ref_template="#/components/schemas/{model}")
    defined: dict[str, Any] = schema["$defs"]
    for found in defined.values():
        request = found.get("properties", {}).get("request", {})
        if "oneOf" in request:  # two kinds' requests may look alike; the job's kind tells them apart
            request["anyOf"] = request.pop("oneOf")
    return dict(sorted(defined.items()))


def as_yaml(document: Mapping[str, Any]) -> str:
    """The document as it is committed."""
    said = "# Written by `make docs`: edit topics.yaml, schemas/ or tests/examples instead.\n"
    return said + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Without anchors: the reader of a document wants the thing itself."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 of none
        return True


def topics_page(catalog: Catalog) -> str:
    """The topics as a table in Markdown."""
    lines = [
        "<!-- Written by `make docs`: edit topics.yaml instead. -->",
        "# Topics",
        "",
        "In the order in which a job meets them. Each is a public interface; `asyncapi.yaml` beside this page has the",
        "fields and examples, `tests/examples` the same examples as files.",
        "",
        "| topic | what | key | event | written by | read by | partitions | kept |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for topic in catalog:
        cells = [
            f"`{topic.name}`", " ".join(topic.description.split()), topic.key, topic.event or "any",
            ", ".join(topic.producers), ", ".join(topic.consumers), str(topic.partitions), _kept(topic),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _kept(topic: Topic) -> str:
    if topic.retention_ms is None:
        return "the newest of each key"
    days = topic.retention_ms / DAY_MS
    return f"{days:g} day" + ("s" if days != 1 else "")


def generate() -> dict[Path, str]:
    """The files of docs/ and what belongs in them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    catalog = Catalog.load()
    document = asyncapi(
        catalog, read_examples(), version=project["version"], description=project["description"]
    )  # fmt: skip
    return {DOCUMENT: as_yaml(document), PAGE: topics_page(catalog)}


if __name__ == "__main__":
    for path, text in generate().items():
        path.write_text(text)
