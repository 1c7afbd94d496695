"""What the trainer says: a line of JSON for each thing."""

import json
import sys
from typing import Any

MAX_TEXT = 4_000  # letters of an answer


def tell(**said: Any) -> None:
    """One line, at once."""
    sys.stdout.write(json.dumps(said, allow_nan=False) + "\n")
    sys.stdout.flush()


def fail(code: str, message: str) -> None:
    """The last line, where nothing came of it."""
    tell(code=code, message=message[:500])
