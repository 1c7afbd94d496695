"""Logging of a process: one line each, bounded in rate."""

import logging
import re
import time
from contextvars import ContextVar
from typing import Any

MAX_PER_KEY, PERIOD_S = 5, 60.0  # of the same logger, level and message, before they are only counted
MAX_TRACEBACKS = 100  # of the same kind and from our own packages: each is of another job
OURS = ("client", "embedded", "ingress", "processors", "providers", "schemas", "sinks", "streams", "transport", "vault")
EXTRAS = ("job_id", "event_id", "stage", "target")
MAX_LINE_CHARS = 4000
# Of the request that is being answered, where there is one; what is begun on its behalf has it, too.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
# A name that somebody chose may hold a line's end, and then forges a line, or a terminal's commands.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# What errors of these say holds the value that did not fit, and that may be a prompt or a row with one.
_INPUT = re.compile("input_value=.*, input_type=")
_OF_A_ROW = re.compile(
    r"^([ |]*asyncpg\.[\w.]+): .*?(?=\n\n[ |]*(?:The above|During handling)|\Z)", re.DOTALL | re.MULTILINE
)
NOISY = (
    "aiokafka",
    "kafka",
    "faust",
    "mode",
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "openai",
    "google_genai",
    "asyncio",
)


class RateLimitFilter(logging.Filter):
    """Lets a few of the same kind through each minute: aiokafka writes 120 errors a second while its broker is away."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """True if it may pass."""
        is_our_bug = bool(record.exc_info) and record.name.partition(".")[0] in OURS
        most = MAX_TRACEBACKS if is_our_bug else MAX_PER_KEY
        key = (record.name, record.levelno, str(record.msg)[:200])
        began, count = self._seen.get(key, (0.0, 0))
        now = time.monotonic()
        if now - began > PERIOD_S:
            if count > most:
                record.msg = f"{record.msg} (and {count - most} more like it before)"
            began, count = now, 0
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[key] = (began, count + 1)
        return count < most


class Formatter(logging.Formatter):
    """One line, with what a record says beside its message at the end of it: `job_id=... request_id=...`."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 the library's name
        """The line before a traceback: one, whatever stands in it, and not without end."""
        told = [f"{name}={getattr(record, name)}" for name in EXTRAS if getattr(record, name, None)]
        if (request_id := REQUEST_ID.get()) is not None:
            told.append(f"request_id={request_id}")
        message = super().formatMessage(record)
        if len(message) > MAX_LINE_CHARS:
            message = f"{message[:MAX_LINE_CHARS]}..."
        return _CONTROL.sub(_escaped, " ".join([message, *told]))

    def formatException(self, ei: Any) -> str:  # noqa: N802 the library's name
        """Indented: what an error says in lines of its own is then no line of the log; without what did not fit."""
        text = _INPUT.sub("input_value=(left out), input_type=", super().formatException(ei))
        lines = _OF_A_ROW.sub(r"\1: (left out: it may hold what stood in the row)", text).splitlines()
        return "\n".join(f"  {_CONTROL.sub(_escaped, line)}" for line in lines)


def _escaped(control: "re.Match[str]") -> str:
    return control.group().encode("unicode_escape").decode()


def set_up(*, debug: bool) -> None:
    """To standard error; libraries only from WARNING on."""
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    handler.addFilter(RateLimitFilter())
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
