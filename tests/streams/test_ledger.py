from dataclasses import dataclass

from aiokafka.structs import OffsetAndMetadata
from hypothesis import given
from hypothesis import strategies as st

from streams.ledger import MAX_METADATA_BYTES, MAX_RECENT_IDS, Ledger


@dataclass(frozen=True)
class Delivered:
    offset: int
    timestamp: int = 1_700_000_000_000


def records(first: int, last: int) -> list[Delivered]:
    return [Delivered(offset) for offset in range(first, last + 1)]


def test_nothing_is_committed_past_the_lowest_unfinished_record() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 20))
    for offset in range(1, 21):
        ledger.finish(offset)
    assert ledger.committable().offset == 0
    ledger.finish(0)
    assert ledger.committable() == OffsetAndMetadata(21, "")


def test_what_was_finished_ahead_is_not_delivered_to_the_next_owner() -> None:
    ledger = Ledger(Delivered(8))
    ledger.deliver(records(8, 25))
    for offset in (10, 11, 15, 25):
        ledger.finish(offset)
    heir = Ledger(Delivered(8), ledger.committable())
    assert [record.offset for record in heir.deliver(records(8, 27))] == [8, 9, 12, 13, 14, *range(16, 25), 26, 27]


def test_metadata_of_a_topic_that_was_made_anew_is_ignored() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 3))
    ledger.finish(2)
    heir = Ledger(Delivered(0, timestamp=1), ledger.committable())
    assert len(heir.deliver([Delivered(n, 1) for n in range(4)])) == 4


def test_metadata_stays_below_what_brokers_take() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 19_999))
    for offset in range(1, 20_000, 2):
        ledger.finish(offset)
    assert 1000 < len(ledger.committable().metadata) <= MAX_METADATA_BYTES


def test_records_that_come_twice_are_delivered_once() -> None:
    ledger = Ledger(Delivered(5))
    assert len(ledger.deliver(records(5, 9))) == 5
    assert [record.offset for record in ledger.deliver(records(7, 11))] == [10, 11]


def test_an_id_is_repeated_only_while_it_is_remembered() -> None:
    ledger = Ledger(Delivered(0))
    assert not ledger.is_repeated("a")
    assert ledger.is_repeated("a")
    for number in range(MAX_RECENT_IDS):
        ledger.is_repeated(str(number))
    assert not ledger.is_repeated("a")


@given(st.sets(st.integers(0, 60)), st.integers(0, 60))
def test_an_heir_gets_exactly_what_is_unfinished(finished: set[int], last: int) -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, last))
    for offset in finished:
        if offset <= last:
            ledger.finish(offset)
    committed = ledger.committable()
    todo = [offset for offset in range(last + 1) if offset not in finished]
    assert committed.offset == (todo[0] if todo else last + 1)
    if todo:
        heir = Ledger(Delivered(committed.offset), committed)
        assert [record.offset for record in heir.deliver(records(committed.offset, last))] == todo


def test_what_is_finished_above_a_slow_record_does_not_count_as_unfinished() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 20))
    assert ledger.unfinished == 21
    for offset in range(1, 21):
        ledger.finish(offset)
    assert ledger.unfinished == 1
    ledger.finish(0)
    assert ledger.unfinished == 0
