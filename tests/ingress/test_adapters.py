"""What is asked of adapters and trainings, refused before it is published; and the picture of a loss."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest

from ingress.adapters import AdapterChecks
from ingress.http.problems import Problem
from ingress.loss_picture import loss_picture
from processors.errors import RetryableError
from processors.learning.adapter_ports import FoundAdapter
from schemas.generation import GenerationConfig
from schemas.requests import TrainingRequest
from sinks.adapters import AdapterRow
from tests.factories import chat_request, user_updated

WHY = "training on `local` needs the extra `lora`: make lora"


def row(name: str = "polite", status: str = "ready", **fields: Any) -> AdapterRow:
    known: dict[str, Any] = {
        "name": name, "adapter_id": UUID(int=1), "provider": "local", "job_id": UUID(int=2), "epochs": 3, "lr": 1e-4,
        "batch_size": 4, "examples": 4, "held_out": 1, "losses": [], "held_out_loss_before": None,
        "held_out_loss_after": None, "error": None, "created_at": datetime(2026, 1, 2, tzinfo=UTC), "finished_at": None,
        "status": status,
    }  # fmt: skip
    return AdapterRow(**known | fields)


class Stores:
    """Adapters and examples; `away`: Postgres."""

    def __init__(self, *rows: AdapterRow, examples: int = 9, away: bool = False) -> None:
        self.rows, self.examples, self.away, self.max_per_user, self.asked = rows, examples, away, 2, 0

    async def all_of(self, user_id: str) -> Any:
        self.asked += 1
        return self.rows

    async def ready(self, user_id: str) -> Any:
        self.asked += 1
        if self.away:
            raise RetryableError("postgres-unavailable", "away")
        return [FoundAdapter(one.adapter_id, one.name, one.provider) for one in self.rows if user_id == "alice"]

    async def count(self, user_id: str) -> int:
        return self.examples


async def checked(stores: Stores, request: Any, *, known: bool = True, user: str = "alice", **more: Any) -> None:
    fields: dict[str, Any] = {"present": ["local", "openai"], "training": ["qwen3vl"], "why_not": {"local": WHY}} | more
    checks = AdapterChecks(
        stores, stores, present=lambda: fields["present"], training=lambda: fields["training"],  # type: ignore[arg-type]
        why_not=lambda: fields["why_not"], is_known=lambda: known, allowed=["openai", "qwen3vl", "local"],
    )  # fmt: skip
    await checks.check(user_updated(user_id=user), request)


async def refused(*args: Any, **more: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        await checked(*args, **more)
    return caught.value


TRAINING = TrainingRequest(name="polite")


@pytest.mark.parametrize(
    ("stores", "request_", "more", "status", "code", "words"),
    [
        (Stores(), TrainingRequest(name="a", provider="local"), {}, 400, "training-unavailable", WHY),
        (Stores(), TrainingRequest(name="a", provider="openai"), {}, 400, "training-unavailable",
         "the provider openai does not train; those that train are: qwen3vl"),
        (Stores(), TRAINING, {"training": []}, 400, "training-unavailable", WHY),
        (Stores(), TRAINING, {"training": [], "why_not": {}}, 400, "training-unavailable", "no provider"),
        (Stores(examples=1), TRAINING, {}, 409, "too-few-examples", "there is one example of yours"),
        (Stores(row()), TRAINING, {}, 409, "adapter-exists", "is there"),
        (Stores(row(status="training")), TRAINING, {}, 409, "adapter-exists", "is being trained"),
        (Stores(row("a"), row("b", "failed")), TRAINING, {}, 409, "too-many-adapters", "at most 2"),
    ],
)  # fmt: skip
async def test_a_training_that_cannot_be_says_what_to_do(
    stores: Stores, request_: Any, more: dict[str, Any], status: int, code: str, words: str
) -> None:
    found = await refused(stores, request_, **more)
    assert (found.status, found.code) == (status, code)
    assert words in found.detail


async def test_a_name_that_came_to_nothing_is_free_and_where_nobody_is_known_the_router_decides() -> None:
    for status in ("failed", "interrupted", "replaced"):
        await checked(Stores(row(status=status)), TRAINING)
    await checked(Stores(), TrainingRequest(name="a", provider="local"), known=False)


async def test_an_adapter_is_ones_own_and_of_the_provider_that_is_asked() -> None:
    wanted = GenerationConfig(mode="lora", adapter="polite")
    stores = Stores(row())
    await checked(stores, chat_request(generation_config=wanted))
    await checked(stores, chat_request(generation_config=wanted, provider="local"))
    found = await refused(stores, chat_request(generation_config=wanted), user="bob")
    assert (found.status, found.code, found.extra["adapters"]) == (400, "no-such-adapter", [])
    found = await refused(stores, chat_request(generation_config=wanted, provider="qwen3vl"))
    assert found.extra["adapters"] == [{"name": "polite", "provider": "local"}]
    found = await refused(stores, chat_request(generation_config=wanted), present=["openai"])
    assert found.code == "no-such-provider"
    found = await refused(Stores(away=True), chat_request(generation_config=wanted))
    assert (found.status, found.headers["Retry-After"]) == (503, "2")


async def test_who_asks_for_none_costs_no_question() -> None:
    stores = Stores()
    await checked(stores, chat_request())
    await checked(stores, chat_request(generation_config=GenerationConfig(mode="lora")))
    assert stores.asked == 0


def elements(svg: str) -> list[str]:
    return [element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()]


@pytest.mark.parametrize("count", [1, 2, 500])
def test_a_curve_is_drawn_within_its_frame(count: int) -> None:
    losses = [{"step": step, "loss": 3 / step} for step in range(1, count + 1)]
    svg = loss_picture(row(losses=losses, held_out_loss_before=3.3, held_out_loss_after=1.4))
    root = ElementTree.fromstring(svg)
    (line,) = [element for element in root.iter() if element.tag.endswith("polyline")]
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert len(points) == count
    assert all(0 <= x <= 720 and 0 <= y <= 360 for x, y in points)
    assert "held out, after: 1.4" in svg


def test_a_picture_without_a_curve_says_so_and_a_name_is_never_markup() -> None:
    assert "tells no losses" in loss_picture(row())
    assert "polyline" not in elements(loss_picture(row(status="training")))
    assert "script" not in elements(loss_picture(row('<script>alert("x")</script>')))
