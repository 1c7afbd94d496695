"""docs/ says what the code says, and is an AsyncAPI 3.0 document."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.asyncapi import DOCUMENT, PAGE, generate
from schemas.examples import read_examples
from schemas.topics import Catalog, event_type

OFFICIAL = Path(__file__).parent / "asyncapi" / "3.0.0.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
    return found


@pytest.mark.parametrize("path", [DOCUMENT, PAGE], ids=lambda path: path.name)
def test_what_is_committed_is_what_the_code_says(path: Path) -> None:
    assert path.read_text() == generate()[path], "run `make docs`"


def test_every_topic_party_and_example_is_in_it(document: dict[str, Any]) -> None:
    operations = {
        (operation["action"], operation["channel"]["$ref"].removeprefix("#/channels/"), name.split("-")[0])
        for name, operation in document["operations"].items()
    }
    wanted = set()
    for topic in Catalog.load():
        kind = event_type(topic)
        assert document["channels"][kind]["address"] == topic.name
        wanted |= {("send", kind, party) for party in topic.producers}
        wanted |= {("receive", kind, party) for party in topic.consumers}
        shown = {example["name"] for example in document["components"]["messages"][kind]["examples"]}
        assert shown == read_examples()[kind].keys()
    assert operations == wanted


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return here + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    found = references(document)
    assert len(found) > 50
    for reference in found:
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in node, reference
            node = node[step]


def test_it_is_valid_against_the_official_schema(document: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    validator = jsonschema.Draft7Validator(json.loads(OFFICIAL.read_text()))
    assert [f"{list(error.absolute_path)}: {error.message[:200]}" for error in validator.iter_errors(document)] == []
    broken = deepcopy(document)
    broken["channels"]["job-requested"]["bindings"]["kafka"]["partitions"] = 0
    assert not validator.is_valid(broken)


@pytest.mark.parametrize("kind", read_examples())
def test_every_example_fits_the_schemas_that_are_published(document: dict[str, Any], kind: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    message = document["components"]["messages"][kind]
    for part in ("headers", "payload"):
        validator = jsonschema.Draft7Validator({**message[part], "components": document["components"]})
        for example in message["examples"]:
            assert [error.message for error in validator.iter_errors(example[part])] == [], example["name"]
