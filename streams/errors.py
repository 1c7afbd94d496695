"""Why a worker does not start."""


class StartError(Exception):
    """The worker cannot start; the message says what to do."""
