"""What a hop is on the wire: the next provider's topic, with the same id each time."""

from types import SimpleNamespace
from typing import Any

from processors.stage import Hop
from schemas.envelope import Attributes, Envelope, Record
from schemas.events import CompletionRequested
from schemas.topics import Catalog
from streams.bad_luck import BadLuck
from streams.cancellations import Cancellations
from streams.encode import Encoder
from streams.serve import StageServer
from tests.factories import NOW, completion_requested
from tests.processors.completion.test_fall_over import of_several

CAUSE = Attributes("e-1", "/s", "completion-requested")


def hop(event: CompletionRequested, luck: BadLuck) -> Record:
    record: Any = SimpleNamespace(topic="here", partition=0, offset=5, key=b"k", value=b"v", headers=())
    app: Any = SimpleNamespace(lanes={"here": SimpleNamespace(luck=luck)})
    server = StageServer(app, Encoder(Catalog.load(prefix="p.")), max_retries=0, cancellations=Cancellations({}))
    result = Hop(event, "openai", "provider-unreachable", "unreachable")
    envelope = Envelope(CAUSE, completion_requested(job=event.job))
    (output,) = server._records(record, envelope, result, "generate_completion", NOW)
    return output


def test_a_hop_goes_to_the_next_providers_topic_with_an_id_that_is_the_same_each_time() -> None:
    event = of_several("gemini")
    first, again = hop(event, BadLuck("s")), hop(event, BadLuck("s"))
    assert (first.topic, first.key) == ("p.completion-requested-gemini", str(event.job.job_id).encode())
    assert dict(first.headers)["ce_id"] == dict(again.headers)["ce_id"]
    told = CompletionRequested.model_validate_json(first.value or b"")
    assert told.model_copy(update={"job": event.job}) == event
    assert [timing.stage for timing in told.job.timings] == ["generate_completion"]


def test_a_hop_is_neither_good_nor_bad_luck_for_its_stage() -> None:
    luck = BadLuck("s", cool_down_s=0)
    for _ in range(19):
        luck.bad("provider-http-401")
    hop(of_several("gemini"), luck)
    luck.bad("provider-http-401")
    assert luck.stopped
