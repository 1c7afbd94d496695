"""Which workers live and what they can reach, by their heartbeats."""

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from schemas.events import ProviderOffer, WorkerHeartbeat
from transport.table import CompactedTable

SILENT_WORKER_S = 15.0  # three beats
EMBEDDINGS, SPEECH = "embeddings", "speech"
TRAINING, NO_TRAINING = "training", "training-unavailable"
APART = frozenset({SPEECH, TRAINING, NO_TRAINING})  # what these do is an offer of its own, and answers no prompts
KEPT_S = 0.2  # a beat comes every 5 s
T = TypeVar("T")

Heartbeats = CompactedTable[WorkerHeartbeat]


def live_workers(beats: Heartbeats) -> list[WorkerHeartbeat]:
    """Those heard of in the last 15 s by the brokers' clock, so that nobody is dead for having another one."""
    return [beat for worker, beat in beats.values.items() if not beat.stopped and beats.age_s(worker) < SILENT_WORKER_S]


def present_providers(beats: Heartbeats, *, can: str | None = None) -> list[str]:
    """Providers that a live worker can reach; `can`: as for `seen_providers`."""
    return sorted({offer.name for beat in live_workers(beats) for offer in beat.providers if _is_meant(offer, can)})


def seen_providers(beats: Heartbeats, *, can: str | None = None) -> list[str]:
    """Providers that any worker could ever reach, also one that is gone: somebody will come back for their topics.

    `can`: only those that can do this, as in `ProviderOffer.can`; None: those that answer prompts.
    """
    offers = [offer for beat in beats.values.values() for offer in beat.providers]
    return sorted({offer.name for offer in offers if _is_meant(offer, can)})


def silent_providers(beats: Heartbeats) -> list[str]:
    """Of those, who makes vectors and does nothing else, wherever they were seen."""
    offers = [offer for beat in beats.values.values() for offer in beat.providers if answers_prompts(offer)]
    return sorted({offer.name for offer in offers} - {offer.name for offer in offers if offer.can != (EMBEDDINGS,)})


def offered_providers(beats: Heartbeats, *, can: str | None = None) -> dict[str, list[ProviderOffer]]:
    """By name, what each live worker says of it; the one that looked at it last stands first.

    `can`: as for `seen_providers`.
    """
    offers: dict[str, list[ProviderOffer]] = {}
    for beat in live_workers(beats):
        for offer in beat.providers:
            if _is_meant(offer, can):
                offers.setdefault(offer.name, []).append(offer)
    return {name: sorted(offers[name], key=_looked_at, reverse=True) for name in sorted(offers)}


def answers_prompts(offer: ProviderOffer) -> bool:
    """True of a provider that is asked for answers, or vectors."""
    return APART.isdisjoint(offer.can)


def why_not_training(beats: Heartbeats) -> dict[str, str]:
    """Of providers that no live worker can train with, why not, by name."""
    there = offered_providers(beats, can=NO_TRAINING)
    trains = set(present_providers(beats, can=TRAINING))
    return {name: offers[0].note or "" for name, offers in there.items() if name not in trains}


def _is_meant(offer: ProviderOffer, can: str | None) -> bool:
    return answers_prompts(offer) if can is None else can in offer.can


def _looked_at(offer: ProviderOffer) -> float:
    return offer.checked_at.timestamp() if offer.checked_at is not None else 0.0


def kept(ask: Callable[[], T], *, now: Callable[[], float] = monotonic) -> Callable[[], T]:
    """The same answer for 0.2 s: it is asked for with every job, and looks at every worker."""
    answer: T | None = None
    until = 0.0

    def answered() -> T:
        nonlocal answer, until
        at = now()
        if answer is None or at >= until:
            answer, until = ask(), at + KEPT_S
        return answer

    return answered
