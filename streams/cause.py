"""What the stage at hand was begun with, for what it says before it ends."""

from contextvars import ContextVar

from schemas.envelope import Attributes

CAUSE: ContextVar[Attributes] = ContextVar("cause")
