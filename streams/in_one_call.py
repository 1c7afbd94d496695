"""Many records in one call: how a sink takes what waits in a partition."""

from collections import deque
from typing import TYPE_CHECKING

from streams.batch import Batch, BatchHandler

if TYPE_CHECKING:
    from streams.lane import Lane

SINK_BATCH = 1_000


async def in_one_call(lane: "Lane", queue: "deque[Batch]", *, handle: BatchHandler) -> None:
    """Until the queue of a partition is empty: one call for as much of it as fits, then the next.

    Args:
        lane: Whose records these are; it ends the process where a call fails, which acknowledges nothing.
        queue: What waits, the first of it at work.
        handle: The call.
    """
    offset: int | None = None
    try:
        while queue:
            taken = [queue[0]]
            size = len(queue[0].records)
            for batch in list(queue)[1:]:
                if size + len(batch.records) > SINK_BATCH:
                    break
                taken.append(batch)
                size += len(batch.records)
            live = [batch for batch in taken if batch.ledger.live]
            records = [record for batch in live for record in batch.records]
            if records:
                offset = records[0].offset
                lane.unanswered += len(records)
                try:
                    await handle(records)
                finally:
                    lane.unanswered -= len(records)
                for batch in live:
                    for record in batch.records:
                        batch.ledger.finish(record.offset)
                lane.finished += len(records)
            lane.pending -= size
            for _ in taken:
                queue.popleft()
    except Exception as error:
        lane.app.fail(offset, error)
