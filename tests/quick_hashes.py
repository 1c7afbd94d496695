"""Argon2id that takes a millisecond: with the product's parameters a login is 64 MiB and a fifth of a second of CPU.

Every set-up, every start of an ingress and every login has one; thousands of them were a third of what the tests cost.
`tests/ingress/test_logins.py` has the product's own parameters, and `DEAR_HASHES` gives them to a process of a test.
"""

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

DEAR_HASHES = "TESTS_DEAR_HASHES"  # in a process's environment
recommended = PasswordHash.recommended  # the product's


def quick() -> PasswordHash:
    return PasswordHash((Argon2Hasher(time_cost=1, memory_cost=1024, parallelism=1),))


def use() -> None:
    """From now on, in this process."""
    PasswordHash.recommended = quick  # type: ignore[method-assign]
