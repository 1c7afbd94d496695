"""What a person has to do something about."""


class EmbeddedError(Exception):
    """One clear sentence on why a part cannot be started, and what to do."""
