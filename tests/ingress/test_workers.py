import pytest

from ingress.workers import item_of
from schemas.events import ProviderOffer, StageLoad, WorkerHeartbeat
from tests.factories import NOW


@pytest.mark.parametrize(
    ("age_s", "stopped", "alive"), [(4, False, True), (14.9, False, True), (15, False, False), (1, True, False)]
)
def test_a_worker_is_told_with_all_that_it_said(age_s: float, stopped: bool, alive: bool) -> None:
    load = StageLoad(stage="limit_rate", in_flight=2, lag=7, finished_last_minute=90)
    offer = ProviderOffer(name="openai", models=("m",), healthy=False, code="provider-http-401", checked_at=NOW)
    beat = WorkerHeartbeat(
        worker="gate-a", at=NOW, roles=("gate",), partitions={"job-requested": (0, 3)},
        stages=(load,), providers=(offer,), version="1", http="http://h:1",
        stopped=stopped,
    )  # fmt: skip
    assert item_of(beat, age_s=age_s) == {
        "worker": "gate-a", "alive": alive, "age_s": age_s, "roles": ("gate",), "partitions": {"job-requested": (0, 3)},
        "stages": ({"stage": "limit_rate", "in_flight": 2, "lag": 7, "finished_last_minute": 90},),
        "providers": (offer.model_dump(),), "version": "1", "http": "http://h:1",
    }  # fmt: skip
