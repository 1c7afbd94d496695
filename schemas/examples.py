"""Reads the examples of records: `<folder>/<ce_type>/<case>.json` with key, headers and value, as on the wire."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

EXAMPLES = Path(__file__).parent.parent / "tests" / "examples"


class Example(BaseModel):
    """One record of a topic, for people and for tests; binary parts as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    headers: dict[str, str]
    value: dict[str, Any]

    def wire_headers(self) -> list[tuple[str, bytes | None]]:
        """The headers as a consumer gets them."""
        return [(name, text.encode()) for name, text in self.headers.items()]


def read_examples(folder: Path = EXAMPLES) -> Mapping[str, Mapping[str, Example]]:
    """By type and case, both in alphabetical order.

    Raises:
        pydantic.ValidationError: One has other fields than key, headers and value.
    """
    return {
        topic.name: {case.stem: Example.model_validate_json(case.read_bytes()) for case in sorted(topic.glob("*.json"))}
        for topic in sorted(folder.iterdir())
    }
