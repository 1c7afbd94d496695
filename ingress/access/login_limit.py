"""How often one may guess: wrong passwords are counted per user and address, and per address."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from time import monotonic

from ingress.http.problems import Problem
from sinks.login_failures import RECENT_S, RecentFailure

PERIOD_S = 60.0
PER_ADDRESS = 5  # times as many for one address as for one user from there: people share addresses
MAX_KEPT = 20_000


class LoginLimit:
    """Token buckets, so that guessing costs nobody a hash. A right password costs nothing.

    They are this replica's own, and learn of the others' with each wrong password here (`learn`): an address that goes
    from one replica to the next is told on its first wrong password at each. So of N replicas N - 1 wrong passwords
    more than the limit are looked at, and what is under way at once; who knows the password asks nobody.
    """

    def __init__(self, *, per_min: int, clock: Callable[[], float] = monotonic) -> None:
        """`per_min`: wrong passwords for one user from one address."""
        self._per_min, self._clock = per_min, clock
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, str | None], tuple[float, float]] = OrderedDict()

    def take(self, user_id: str, address: str) -> None:
        """Before a password is looked at.

        Raises:
            Problem: 429, with when to come back.
        """
        wait = max(self._wait_s((address, user_id)), self._wait_s((address, None)))
        if wait > 0:
            seconds = int(wait) + 1
            raise Problem(
                429, "too-many-logins", f"too many wrong passwords: wait {seconds} s",
                headers={"Retry-After": str(seconds)}, retry_after_s=seconds,
            )  # fmt: skip
        self._add((address, user_id), -1.0)
        self._add((address, None), -1.0)

    def give_back(self, user_id: str, address: str) -> None:
        """It was the right one."""
        self._add((address, user_id), 1.0)
        self._add((address, None), 1.0)

    def learn(self, user_id: str, address: str, failures: Sequence[RecentFailure]) -> None:
        """What all replicas have seen fail from this address, newest first: no bucket holds more than that leaves."""
        self._lower((address, user_id), [failure.age_s for failure in failures if failure.of_the_user])
        self._lower((address, None), [failure.age_s for failure in failures])

    def _lower(self, key: tuple[str, str | None], ages_s: Sequence[float]) -> None:
        most = self._most(key)
        tokens, at = most, RECENT_S
        for age_s in sorted(ages_s, reverse=True):
            tokens = min(most, tokens + (at - age_s) * most / PERIOD_S) - 1.0
            at = age_s
        tokens = max(0.0, min(most, tokens + at * most / PERIOD_S))
        if tokens < self._tokens(key):
            self._add(key, tokens - self._tokens(key))

    def is_news(self, user_id: str, address: str) -> bool:
        """True of a refusal that nobody was told of for a minute: whoever writes them down has a bounded number."""
        now = self._clock()
        if now - self._told.get((address, user_id), float("-inf")) < PERIOD_S:
            return False
        self._told[address, user_id] = now
        self._told.move_to_end((address, user_id))
        if len(self._told) > MAX_KEPT:
            self._told.popitem(last=False)
        return True

    def _most(self, key: tuple[str, str | None]) -> float:
        return float(self._per_min if key[1] is not None else self._per_min * PER_ADDRESS)

    def _tokens(self, key: tuple[str, str | None]) -> float:
        most = self._most(key)
        tokens, at = self._buckets.get(key, (most, 0.0))
        return min(most, tokens + (self._clock() - at) * most / PERIOD_S)

    def _wait_s(self, key: tuple[str, str | None]) -> float:
        return (1.0 - self._tokens(key)) * PERIOD_S / self._most(key)

    def _add(self, key: tuple[str, str | None], tokens: float) -> None:
        self._buckets[key] = (min(self._most(key), self._tokens(key) + tokens), self._clock())
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_KEPT:  # whoever was quiet for longest is forgiven
            self._buckets.popitem(last=False)
