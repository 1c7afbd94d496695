"""How the outside fails: it may work later, or it refused."""


class RetryableError(Exception):
    """It may work later.

    Args:
        code: A stable kebab-case fact, such as `provider-unreachable` or `provider-http-429`.
        message: For people; without prompt text or secrets.
        retry_after_s: As long as the other side asked to wait, if it did.
    """

    def __init__(self, code: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after_s = code, message, retry_after_s


class PermanentError(Exception):
    """The other side refused, and would again. Arguments as in `RetryableError`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message
