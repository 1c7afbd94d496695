"""Named points at which a process ends as by kill -9, stands still, or fails; put around the product from outside.

`FAIL=<point>:<action>@<n>`: at the n-th passing of the point. The product has no hook for it: `under_test.py`, which
only tests start, replaces methods of the product's classes before it runs them.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from processors.errors import RetryableError
from schemas.envelope import Record, first_header

GATE_STAGES = ("sanitize_prompt", "limit_rate", "route_job")
STAGES = (*GATE_STAGES, "generate_completion")
ROLES = ("gate", "completion", "sink")
SINKS = ("store_pending", "store_outcome")
BESIDE_A_SINK = ("webhook", "release_due")  # what its process does beside its topics
# Where each process may be ended: role -> points, in the order in which a job meets them.
POINTS: Mapping[str, tuple[str, ...]] = {
    "ingress": ("ingress.before_send", "ingress.after_send", "ingress.after_ack"),
    "gate": (*(f"{stage}.{at}" for stage in GATE_STAGES for at in ("before_send", "after_send", "after_ack")),
             "gate.before_commit", "gate.after_commit"),
    "completion": ("generate_completion.before_call", "generate_completion.before_send",
                   "generate_completion.after_send", "generate_completion.after_ack", "completion.before_commit",
                   "completion.after_commit"),
    "sink": (*(f"{sink}.{at}" for sink in SINKS for at in ("before_write", "after_write")),
             "sink.before_commit", "sink.after_commit", "webhook.before_post", "webhook.after_post",
             "webhook.after_record", "release_due.before_publish", "release_due.after_publish",
             "release_due.after_delete"),
}  # fmt: skip
BLOCK_S = 90.0
STAGE_SOURCE = "/assistant/"
POISON = "[poison={role}]"  # in a prompt; `role`: gate, completion
POISONED_EXIT = 139


class NoSuchPointError(ValueError):
    """A failpoint that is nowhere."""


@dataclass
class Failpoint:
    """The one that is armed. `exit`: kill -9; `block`: the event loop stands still; `fail`: the caller is told no."""

    point: str
    action: str
    left: int

    @classmethod
    def parse(cls, text: str) -> "Failpoint":
        """From `after_send:exit@7`.

        Raises:
            NoSuchPointError: There is no such point or action.
        """
        point, _, rest = text.partition(":")
        action, _, count = rest.partition("@")
        if point not in {name for names in POINTS.values() for name in names}:
            raise NoSuchPointError(f"there is no point {point!r}")
        if action not in ("exit", "block", "fail") or not count.isdigit() or int(count) < 1:
            raise NoSuchPointError(f"{text!r}: must be <point>:<exit|block|fail>@<n>")
        return cls(point, action, int(count))

    def __call__(self, point: str) -> None:
        """Pass a point.

        Raises:
            RetryableError: The action is `fail`: what was done is not told to whoever asked for it.
        """
        if point != self.point or self.left == 0:
            return
        self.left -= 1
        if self.left:
            return
        if self.action == "exit":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "block":
            time.sleep(BLOCK_S)
        else:
            raise RetryableError("chaos", "the reply was lost")


Hit = Callable[[str], None]


def install(hit: Hit) -> None:
    """Put points around everything that sends, writes, posts and commits."""
    _around_stages(hit)
    _around_commits(hit)
    _around_sinks(hit)
    _around_webhooks(hit)
    _around_releaser(hit)
    _around_ingress(hit)


def install_poison() -> None:
    """Have prompts that say so end their process: while the gate judges them, or before the provider is asked."""
    from processors.filter.prompt_policy import PromptPolicy
    from providers.openai_compatible import OpenAICompatibleProvider

    judge, stream = PromptPolicy.judge, OpenAICompatibleProvider.stream

    def poisoned_judge(self: PromptPolicy, text: str) -> Any:
        if POISON.format(role="gate") in text:
            os._exit(POISONED_EXIT)
        return judge(self, text)

    async def poisoned_stream(self: OpenAICompatibleProvider, request: Any, on_delta: Any) -> Any:
        if POISON.format(role="completion") in request.prompt:
            os._exit(POISONED_EXIT)
        return await stream(self, request, on_delta)

    PromptPolicy.judge = poisoned_judge  # type: ignore[method-assign]
    OpenAICompatibleProvider.stream = poisoned_stream  # type: ignore[method-assign]


def _around_stages(hit: Hit) -> None:
    from providers.openai_compatible import OpenAICompatibleProvider
    from streams.app import StreamApp
    from streams.lane import Lane
    from streams.outbox import Outbox

    hand_over, stream = StreamApp.hand_over, OpenAICompatibleProvider.stream
    put, answered = Outbox.put, Lane._answered

    def stage_of(record: Record) -> str:
        return (first_header(record.headers, "ce_source") or "").removeprefix(STAGE_SOURCE)

    async def put_with_points(self: Outbox[Any], record: Record, work: Any) -> None:
        hit(f"{stage_of(record)}.before_send")
        await put(self, record, work)
        hit(f"{stage_of(record)}.after_send")

    def answered_with_points(self: Lane, held: Any, error: BaseException | None) -> None:
        for _, record in held if error is None else ():
            hit(f"{stage_of(record)}.after_ack")  # before the lane learns of it
        answered(self, held, error)

    async def hand_over_with_points(self: StreamApp, record: Record) -> "asyncio.Future[Any]":
        stage = stage_of(record)
        if stage not in STAGES:
            return await hand_over(self, record)
        hit(f"{stage}.before_send")
        answer = await hand_over(self, record)
        hit(f"{stage}.after_send")
        answer.add_done_callback(lambda _: hit(f"{stage}.after_ack"))  # before the lane learns of it
        return answer

    async def stream_with_points(self: OpenAICompatibleProvider, request: Any, on_delta: Any) -> Any:
        hit("generate_completion.before_call")
        return await stream(self, request, on_delta)

    StreamApp.hand_over = hand_over_with_points  # type: ignore[method-assign]
    Outbox.put = put_with_points  # type: ignore[method-assign]
    Lane._answered = answered_with_points  # type: ignore[method-assign]
    OpenAICompatibleProvider.stream = stream_with_points  # type: ignore[method-assign]


def _around_commits(hit: Hit) -> None:
    from streams.consumer import Consumer

    force_commit = Consumer.force_commit

    async def force_commit_with_points(self: Consumer, *args: Any, **kwargs: Any) -> bool:
        moved = {tp: ledger.committable() for tp, ledger in self.ledgers.items()}
        if any(at != self._committed.get(tp) for tp, at in moved.items()):
            hit(f"{self.app.role}.before_commit")
        done = await force_commit(self, *args, **kwargs)
        if done:
            hit(f"{self.app.role}.after_commit")
        return done

    Consumer.force_commit = force_commit_with_points  # type: ignore[method-assign]


def _around_sinks(hit: Hit) -> None:
    from sinks.postgres import OutcomeSink, PendingSink

    for sink, name in ((PendingSink, "store_pending"), (OutcomeSink, "store_outcome")):

        async def write_with_points(self: Any, envelopes: Any, write: Any = sink.write, name: str = name) -> None:
            hit(f"{name}.before_write")
            await write(self, envelopes)
            hit(f"{name}.after_write")

        sink.write = write_with_points  # type: ignore[method-assign]


def _around_webhooks(hit: Hit) -> None:
    from sinks.egress import EgressClient
    from sinks.webhook_store import WebhookStore

    post, record = EgressClient.post, WebhookStore.record

    async def post_with_points(self: EgressClient, *args: Any, **kwargs: Any) -> Any:
        hit("webhook.before_post")
        reply = await post(self, *args, **kwargs)
        hit("webhook.after_post")
        return reply

    async def record_with_points(self: WebhookStore, *args: Any, **kwargs: Any) -> bool:
        done = await record(self, *args, **kwargs)
        hit("webhook.after_record")
        return done

    EgressClient.post = post_with_points  # type: ignore[method-assign]
    WebhookStore.record = record_with_points  # type: ignore[method-assign]


def _around_releaser(hit: Hit) -> None:
    from sinks.due_store import DueStore
    from streams.releaser import Releaser

    lease, publish, delete = DueStore.lease, Releaser._publish, DueStore.delete

    async def lease_with_points(self: DueStore, *args: Any, **kwargs: Any) -> Any:
        leased = await lease(self, *args, **kwargs)
        if leased.records:
            hit("release_due.before_publish")
        return leased

    async def publish_with_points(self: Releaser, *args: Any, **kwargs: Any) -> Any:
        published = await publish(self, *args, **kwargs)
        hit("release_due.after_publish")
        return published

    async def delete_with_points(self: DueStore, *args: Any, **kwargs: Any) -> None:
        await delete(self, *args, **kwargs)
        hit("release_due.after_delete")

    DueStore.lease = lease_with_points  # type: ignore[method-assign]
    Releaser._publish = publish_with_points  # type: ignore[method-assign]
    DueStore.delete = delete_with_points  # type: ignore[method-assign]


def _around_ingress(hit: Hit) -> None:
    from ingress.publisher import Publisher

    send = Publisher._send

    class ProducerWithPoints:
        def __init__(self, producer: Any) -> None:
            self._producer = producer

        async def send_and_wait(self, *args: Any, **kwargs: Any) -> Any:
            hit("ingress.before_send")
            answer = await self._producer.send(*args, **kwargs)
            hit("ingress.after_send")
            found = await answer
            hit("ingress.after_ack")
            return found

    async def send_with_points(self: Publisher, producer: Any, record: Record) -> None:
        await send(self, ProducerWithPoints(producer), record)

    Publisher._send = send_with_points  # type: ignore[method-assign]
