"""Logging of a process: one line each, bounded in rate."""

import logging
import time

MAX_PER_KEY, PERIOD_S = 5, 60.0  # of the same logger, level and message, before they are only counted
NOISY = ("aiokafka", "kafka", "faust", "mode", "httpx", "httpx2", "openai", "asyncio")


class RateLimitFilter(logging.Filter):
    """Lets a few of the same kind through each minute: aiokafka writes 120 errors a second while its broker is away."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """True if it may pass."""
        key = (record.name, record.levelno, str(record.msg)[:200])
        began, count = self._seen.get(key, (0.0, 0))
        now = time.monotonic()
        if now - began > PERIOD_S:
            if count > MAX_PER_KEY:
                record.msg = f"{record.msg} (and {count - MAX_PER_KEY} more like it before)"
            began, count = now, 0
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[key] = (began, count + 1)
        return count < MAX_PER_KEY


def set_up(*, debug: bool) -> None:
    """To standard error; libraries only from WARNING on."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    handler.addFilter(RateLimitFilter())
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
