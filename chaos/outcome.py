"""One hash for what a job came to, wherever it was seen: as a row, an event, an answer, or a webhook's body."""

from hashlib import sha256
from typing import Any

import orjson


def outcome_hash(status: str, result: Any, error_code: str | None) -> str:
    """The same for the same outcome, whatever the order of its fields."""
    told = orjson.dumps([status, result, error_code], option=orjson.OPT_SORT_KEYS)
    return sha256(told).hexdigest()[:16]
