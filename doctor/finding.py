"""What was found of a part."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "wrong", "absent"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        part: What was looked at.
        state: `wrong` is something that is needed and does not work; `absent` is nobody's fault: it was not started,
            is not set, or is not needed.
        found: What it is, without any secret.
        advice: What to do, where there is something.
    """

    part: str
    state: State
    found: str
    advice: str = ""
