"""What a worker counts; served on its `/metrics`."""

from collections.abc import Sequence
from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from schemas.events import CompletionRequested, Event, Job, JobEvent, JobFinished

EVENTS = Counter("assistant_stage_events_total", "Events a stage handled, by what came of them", ["stage", "outcome"])
DEAD_LETTERS = Counter("assistant_dead_letters_total", "Events that can never work", ["stage", "code"])
RETRIES = Counter("assistant_retries_total", "Tries that failed and were repeated", ["stage", "code"])
STAGE_SECONDS = Histogram(
    "assistant_stage_seconds",
    "Time a stage had an event in hand",
    ["stage"],
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 30, 60, 120),
)
IN_FLIGHT = Gauge("assistant_stage_in_flight", "Events a stage has in hand", ["stage"])
STOPPED = Gauge("assistant_stage_stopped", "1: too many dead letters, so it takes no more", ["stage"])
LAG = Gauge("assistant_stage_lag", "Events of a stage's topic that wait", ["stage"])
BREAKER = Gauge("assistant_provider_breaker", "0: closed, 1: half-open, 2: open and asked for nothing", ["provider"])
BREAKER_OPENED = Counter("assistant_provider_breaker_opened_total", "Times a provider's breaker opened", ["provider"])
FALLOVERS = Counter(
    "assistant_fallovers_total", "Jobs that went on to another provider, by why", ["provider", "reason"]
)
SLOWED = Counter("assistant_provider_slowed_total", "Calls that a provider refused with 429", ["provider"])
CANCELLATIONS = Counter("assistant_cancellations_total", "Requests to cancel, by what became of them", ["outcome"])
CLASSIFIED = Counter("assistant_prompts_classified_total", "Prompts a classifier was to be asked about", ["outcome"])
RISKS = Counter(
    "assistant_risks_total", "Jobs in which the filter found something, by what followed", ["where", "action", "reason"]
)
CITATIONS = Counter(
    "assistant_citations_total", "Citations in answers from documents: `valid`, or `removed` for they point nowhere",
    ["outcome"],
)  # fmt: skip
LINKS_REMOVED = Counter("assistant_answer_links_removed_total", "Links taken out of answers: they led outside")
RETRIEVED = Counter(
    "assistant_retrievals_total", "Questions to documents, by what there was to answer from", ["outcome"]
)  # fmt: skip
PASSAGES_LEFT_OUT = Counter("assistant_passages_left_out_total", "Passages that read like instructions")

# Looked up for each event: to ask the library for it costs ten times as much. Labels are few, or they were no labels.
outcome_of = lru_cache(maxsize=4096)(EVENTS.labels)
seconds_of = lru_cache(maxsize=4096)(STAGE_SECONDS.labels)


def count_answer(events: Sequence[Event]) -> None:
    """Of an answer from documents, what was cited in it."""
    for event in events:
        if isinstance(event, JobFinished) and event.result is not None and event.job.kind == "rag":
            meta = event.result.get("meta", {})
            for outcome, count in meta.get("citations", {}).items():
                CITATIONS.labels(outcome).inc(count)
            LINKS_REMOVED.inc(meta.get("links_removed", 0))


def count_retrieved(events: Sequence[Event]) -> None:
    """Of a question to documents, what was found."""
    for event in events:
        if isinstance(event, CompletionRequested) and event.retrieved is not None:
            RETRIEVED.labels("found").inc()
            PASSAGES_LEFT_OUT.inc(event.retrieved.left_out)
        elif isinstance(event, JobFinished) and event.job.kind == "rag" and event.result is not None:
            meta = event.result["meta"]
            RETRIEVED.labels(meta["found"]).inc()
            PASSAGES_LEFT_OUT.inc(meta.get("left_out", 0))


def count_risks(before: Job, events: Sequence[Event]) -> None:
    """What a stage has found in a job, which the job did not have before."""
    for event in events:
        if isinstance(event, JobEvent) and (risk := event.job.risk) is not None and risk != before.risk:
            RISKS.labels(risk.where, risk.action, risk.reason).inc()
