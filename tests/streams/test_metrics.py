"""What is counted of the filter's findings: each where it was made, once."""

from prometheus_client import REGISTRY

from schemas.events import JobEvent, Risk
from streams.metrics import count_risks
from tests.factories import job, job_admitted, job_finished, prompt_sanitized

RISK = Risk(score=0.4, action="flag", reason="instruction-injection", rules=("forget-all",))
LABELS = {"where": "prompt", "action": "flag", "reason": "instruction-injection"}


def counted() -> float:
    return REGISTRY.get_sample_value("assistant_risks_total", LABELS) or 0.0


def test_a_risk_is_counted_where_it_was_found_and_not_where_it_is_carried_on() -> None:
    plain = job()
    risky = plain.with_risk(RISK)
    before = counted()
    events: list[JobEvent] = [prompt_sanitized(job=risky)]
    count_risks(plain, events)
    assert counted() == before + 1
    count_risks(risky, [job_admitted(job=risky)])
    count_risks(plain, [job_finished(job=plain)])
    assert counted() == before + 1


def test_what_weighs_more_stays_and_a_refusal_takes_its_place() -> None:
    risky = job().with_risk(RISK)
    assert risky.with_risk(RISK.model_copy(update={"score": 0.35})).risk == RISK
    refused = RISK.model_copy(update={"action": "refuse", "score": 0.3, "where": "answer"})
    assert risky.with_risk(refused).risk == refused
    assert risky.with_risk(None).risk == RISK
