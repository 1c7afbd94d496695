"""The product broken on purpose, so that the checker is seen to see: `MUTANT=<name>`, for `under_test.py` alone."""

from collections.abc import Callable, Mapping


def last_outcome_wins() -> None:
    """A repeated outcome replaces the stored one: what the condition of the sink's statement prevents."""
    from sinks import postgres

    whole = postgres.STORE_OUTCOMES
    start, end = whole.index("  AND (excluded.run > j.run"), whole.index("RETURNING")
    postgres.STORE_OUTCOMES = whole[:start] + whole[end:]


MUTANTS: Mapping[str, Callable[[], None]] = {"last-outcome-wins": last_outcome_wins}
