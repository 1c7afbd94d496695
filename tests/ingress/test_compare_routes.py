"""Comparisons by REST: bounds, whose they are, keys, reports."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from sinks.comparison_rows import Grid
from tests.factories import user_updated
from tests.ingress.comparing_scene import Scene, at_work

pytestmark = pytest.mark.integration


async def refused(scene: Scene, status: int, code: str, **body: Any) -> dict[str, Any]:
    whole = {"prompts": ["p"], "variants": [{}]} | body
    reply = await scene.client.post("/compare", json=whole)
    problem: dict[str, Any] = reply.json()
    assert (reply.status_code, problem["code"]) == (status, code), reply.text
    return problem


async def test_a_grid_has_bounds(scene: Scene) -> None:
    bodies: list[dict[str, Any]] = [
        {"prompts": []}, {"variants": []}, {"prompts": ["p"] * 1001}, {"variants": [{}] * 101},
        {"prompts": ["p"] * 501, "variants": [{}, {}]}, {"prompts": ["x" * 20_001]}, {"prompts": [" "]},
        {"variants": [{"colour": "red"}]}, {"variants": [{"generation_config": {"temperature": 3.0}}]},
        {"timeout": 121.0}, {"instruction": "x" * 5001}, {"prompts": "p"},
    ]  # fmt: skip
    for body in bodies:
        await refused(scene, 422, "invalid-body", **body)
    await refused(scene, 400, "no-such-provider", variants=[{}, {"provider": "nobody"}])
    assert (await scene.pipeline.execute("SELECT count(*) FROM comparisons"))[0][0] == 0
    await scene.ask(500, 2)  # the largest


async def test_a_user_has_so_many_under_way(scene: Scene) -> None:
    scene.users["bob"] = user_updated(user_id="bob")
    replies = await asyncio.gather(
        *(scene.client.post("/compare", json={"prompts": ["p"], "variants": [{}]}) for _ in range(6))
    )
    assert Counter(reply.status_code for reply in replies) == {202: 2, 429: 4}
    problem = await refused(scene, 429, "too-many-comparisons")
    assert problem["retry_after_s"] == 30
    scene.user = scene.users["bob"]
    await scene.ask(1)
    scene.user = scene.users["alice"]
    async with at_work(scene.comparing):
        for reply in replies:
            if reply.status_code == 202:
                await scene.ended(reply.json()["comparison_id"])
        await scene.ask(1)


async def test_another_users_is_as_unknown_as_none(scene: Scene) -> None:
    comparison_id = await scene.ask(1)
    for user, status in ((user_updated(user_id="mallory"), 404), (user_updated(user_id="root", role="admin"), 200)):
        scene.user = user
        for path in ("", "/report", "/report?format=html"):
            assert (await scene.client.get(f"/compare/{comparison_id}{path}")).status_code == status
        reply = await scene.client.post(f"/compare/{comparison_id}/cancel")
        assert reply.status_code == (404 if status == 404 else 202)
        for path in ("", "/report"):
            assert (await scene.client.get(f"/compare/{uuid4()}{path}")).status_code == 404
    assert (await scene.pipeline.execute("SELECT cancel_requested_at IS NULL FROM comparisons"))[0][0] is False


async def test_the_same_key_is_the_same_comparison(scene: Scene) -> None:
    body = {"prompts": ["p"], "variants": [{}]}
    replies = [await scene.client.post("/compare", json=body, headers={"Idempotency-Key": "k"}) for _ in range(4)]
    assert len({reply.json()["comparison_id"] for reply in replies}) == 1  # and more than two may be asked for
    assert [reply.headers.get("idempotency-replayed") for reply in replies] == [None, "true", "true", "true"]
    other = await scene.client.post("/compare", json=body | {"prompts": ["q"]}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_reports_are_bounded_in_number(scene: Scene) -> None:
    comparison_id = await scene.ask(1)
    scene.services.exports.under_way["alice"] = 2
    reply = await scene.client.get(f"/compare/{comparison_id}/report")
    assert (reply.status_code, reply.json()["code"]) == (429, "too-many-exports")


async def test_a_claim_is_for_the_lease_alone(scene: Scene) -> None:
    grid = Grid(["p"], [{}], {})
    comparison_id, _ = await scene.store.create(uuid4(), "alice", grid, limit=1, lifetime=timedelta(hours=1))
    mine, others = uuid4(), uuid4()
    assert await scene.store.lease(mine, for_s=60, limit=5) == [comparison_id]
    assert await scene.store.lease(others, for_s=60, limit=5) == []
    assert await scene.store.claim(comparison_id, others, uuid4(), in_flight=5) is None
    assert await scene.store.settle(comparison_id, others, lost_after_s=60, lost={}) is None
    assert not await scene.store.finish(comparison_id, mine)
    assert await scene.store.claim(comparison_id, mine, uuid4(), in_flight=0) is None
    assert await scene.store.claim(comparison_id, mine, uuid4(), in_flight=1) is not None
    await scene.pipeline.execute("UPDATE comparisons SET leased_until = now() - interval '1 s'")
    await scene.store.renew(mine, [comparison_id], for_s=60)  # what was held too long is not held again
    assert await scene.store.lease(others, for_s=60, limit=5) == [comparison_id]
