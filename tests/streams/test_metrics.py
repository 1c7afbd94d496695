"""What is counted of the filter's findings: each where it was made, once."""

from prometheus_client import REGISTRY

from schemas.events import JobEvent, Retrieved, Risk
from streams.metrics import count_answer, count_retrieved, count_risks
from tests.factories import completion_requested, job, job_admitted, job_finished, prompt_sanitized

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


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_citations_and_links_of_an_answer_from_documents_are_counted() -> None:
    names = ("valid", "removed")
    before = [sample("assistant_citations_total", outcome=name) for name in names]
    links = sample("assistant_answer_links_removed_total")
    meta = {"citations": {"valid": 3, "removed": 2}, "links_removed": 1}
    count_answer([job_finished(job=job(kind="rag"), result={"answer": "x", "meta": meta})])
    count_answer([job_finished(), job_finished(job=job(kind="rag"), code="timeout")])
    after = [sample("assistant_citations_total", outcome=name) for name in names]
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 2]
    assert sample("assistant_answer_links_removed_total") == links + 1


def test_what_was_found_for_a_question_is_counted() -> None:
    names = ("found", "nothing-relevant")
    before = [sample("assistant_retrievals_total", outcome=name) for name in names]
    left_out = sample("assistant_passages_left_out_total")
    found = Retrieved(question="?", passages=(), embedding_provider="local", embedding_model="m", left_out=2)
    count_retrieved([completion_requested(retrieved=found)])
    count_retrieved([job_finished(job=job(kind="rag"), result={"meta": {"found": "nothing-relevant"}})])
    count_retrieved([job_finished(job=job(kind="search"), result={"results": []})])
    after = [sample("assistant_retrievals_total", outcome=name) for name in names]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1]
    assert sample("assistant_passages_left_out_total") == left_out + 2
