"""Whose clock counts: rows that several workers compare are by Postgres's, however far off a worker's own is."""

NEAR_S = 2  # a clock that is no further off is believed: what was told of a time is then what is stored


def by_postgres(time: str, *, shown: str) -> str:
    """SQL: a time that was reckoned by a worker's clock, as it is by Postgres's.

    Args:
        time: The expression of the time.
        shown: The expression of what the worker's clock shows at the statement; where it is NULL the time stays.
    """
    return f"""({time} + CASE WHEN abs(extract(epoch FROM now() - {shown})) < {NEAR_S} THEN interval '0'
                         ELSE coalesce(now() - {shown}, interval '0') END)"""
