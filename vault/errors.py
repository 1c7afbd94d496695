"""What is said where Vault gives nothing."""


class VaultStoreError(Exception):
    """Vault gives nothing; the message says what to do, without any secret."""


class VaultAwayError(VaultStoreError):
    """It does not answer, or is sealed: that passes."""
