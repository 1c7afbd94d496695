"""How often Python looks for garbage that it cannot tell by counting."""

import gc

YOUNG, MIDDLE, OLD = 20_000, 20, 50  # CPython 3.11 has 700, 10, 10


def collect_seldom() -> None:
    """For a process that has started: what is there now stays, and is not looked at again.

    Thousands of records are in hand at once and live just long enough to be looked at over and over; they are no
    garbage of that kind. A round over 20,000 new objects takes about a millisecond, and holds some 4 MB until then.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
