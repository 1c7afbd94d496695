from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded.newcomer import Newcomer


@pytest.fixture(scope="package")
def newcomer(service_home: Path) -> Iterator[Newcomer]:
    """Of all tests here: who needs it to run says `up`, which returns at once where it does."""
    newcomer = Newcomer(service_home / "newcomer")
    yield newcomer
    newcomer.types("down", "--delete-data")
