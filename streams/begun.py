"""What is in hand is written down before anything is done with it, so that whoever kills the process is found."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from faust.types import TP

from streams.batch import Work

if TYPE_CHECKING:
    from streams.app import StreamApp


async def begin(app: "StreamApp", works: Collection[Work]) -> bool:
    """Return once the brokers know that these are in hand; False if one of their partitions was lost."""
    for work in works:
        if work.ledger.live:
            work.ledger.begin(work.record.offset)
    return await tell(app, works)


@asynccontextmanager
async def newest(app: "StreamApp", works: Collection[Work]) -> AsyncIterator[None]:
    """These begin inside, and it is written down that they have just begun."""
    ledgers = {work.ledger for work in works}
    for ledger in ledgers:
        ledger.newest = {work.record.offset for work in works if work.ledger is ledger}
    await begin(app, works)
    yield
    for ledger in ledgers:
        ledger.newest = set()


async def tell(app: "StreamApp", works: Collection[Work]) -> bool:
    """Return once the brokers know what of their partitions is in hand and what is finished; False if one was lost."""
    if not all(work.ledger.live for work in works):
        return False
    told: bool = await app.consumer.commit_begun([*{TP(work.record.topic, work.record.partition) for work in works}])
    return told


@asynccontextmanager
async def alone(app: "StreamApp", work: Work) -> AsyncIterator[bool]:
    """Nothing else is in hand inside, and it is written down that this is; False where that is not called for any more.

    Afterwards it is written down that it was not this one. If it is what killed, and has got its dead letter inside,
    others are suspected no more.
    """
    is_found = work.is_found
    async with app.quarantine.alone(wanted=work.must_be_alone, rank=work.rank):
        is_alone = work.must_be_alone() and await begin(app, [work])
        yield is_alone
        if is_alone and await tell(app, [work]) and is_found and not work.is_found:
            await app.consumer.acquit()
