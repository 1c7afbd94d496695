"""Of what is to be said to whoever starts something of ours."""


class MissingSettingError(Exception):
    """It cannot start; the message names the variable to set."""
