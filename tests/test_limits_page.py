"""docs/limits.md names every setting that is a bound, with the default that it has."""

import re
from pathlib import Path

import pytest

from ingress.access.standings import DEFAULT_MAX_PENDING
from ingress.limits import DEFAULT_LISTENERS
from settings import Settings

PAGE = Path(__file__).parent.parent / "docs" / "limits.md"
ROW = re.compile(r"^\| `([A-Z0-9_]+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = {name: (default.strip(), beyond.strip()) for name, default, beyond in ROW.findall(PAGE.read_text())}
# A setting whose name says that it is a bound; a new one is to be told of.
BOUNDS = re.compile(
    r"^(max_|rate_limit_|quarantine_(after|window_s|s)$|tokens_per_|login_failures|head_timeout|body_timeout"
    r"|stream_.*(bytes|readers)$|.*_concurrency$|.*_ttl_days$|compare_in_flight$|expires_after)"
)
NO_ROW = {"provider_concurrency"}  # it changes COMPLETION_CONCURRENCY, which has one


def test_every_bound_is_told_of_and_nothing_else_that_there_is_not() -> None:
    named = {name.lower() for name in ROWS}
    assert named <= Settings.model_fields.keys()
    assert {name for name in Settings.model_fields if BOUNDS.search(name)} - NO_ROW <= named


@pytest.mark.parametrize("name", ROWS)
def test_a_default_is_the_one_that_it_has(name: str) -> None:
    default, (told, beyond) = Settings.model_fields[name.lower()].default, ROWS[name]
    by_role = {
        "MAX_PENDING_JOBS_PER_USER": f"{DEFAULT_MAX_PENDING} for users, none for admins",
        "MAX_STREAM_LISTENERS_PER_USER": f"{DEFAULT_LISTENERS} for users, none for admins",
    }
    assert told == by_role.get(name, "none" if default is None else f"{default:g}" if default < 10**6 else str(default))
    assert beyond
