"""What a person has to do something about."""


class RecoverError(Exception):
    """One clear sentence on why nothing can be recovered, or why it broke off; it may always be run again."""
