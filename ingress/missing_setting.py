"""A setting without a default, as it is told to whoever starts the ingress or sets up."""


class MissingSettingError(Exception):
    """It cannot start; the message names the variable to set."""
