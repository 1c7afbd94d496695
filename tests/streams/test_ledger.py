from dataclasses import dataclass

from aiokafka.structs import OffsetAndMetadata
from hypothesis import given
from hypothesis import strategies as st

from streams.commit_metadata import MAX_BYTES, decode, encode
from streams.ledger import MAX_RECENT_IDS, Ledger


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
    assert ledger.committable() == OffsetAndMetadata(21, "L")  # while its owner lives
    ledger.live = False
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
    assert 1000 < len(ledger.committable().metadata) <= MAX_BYTES


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


def died(ledger: Ledger, *, end: int, at_once: int = 4) -> Ledger:
    """The next owner after a kill -9."""
    committed = ledger.committable()
    heir = Ledger(Delivered(committed.offset), committed, end=end, at_once=at_once)
    heir.deliver(records(committed.offset, end - 1))
    return heir


def test_what_was_in_hand_when_its_process_died_is_counted_and_handled_alone_from_the_second_time_on() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    ledger.begin(3)
    first = died(ledger, end=10)
    # 0, 1, 2 may have been begun after the last commit: as many as are in hand at once are counted with it.
    assert [first.crashes(offset) for offset in range(10)] == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert not first.is_suspect(3)
    first.finish(0)
    second = died(first, end=10)
    assert [offset for offset in range(10) if second.is_suspect(offset)] == [1, 2, 3]


def test_what_waits_for_its_turn_when_a_process_dies_is_not_counted_again() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    heir = died(ledger, end=10)
    for offset in (1, 2, 3):
        heir.lay_down(offset)
    heir.begin(2)
    second = died(heir, end=10)
    assert [second.crashes(offset) for offset in range(4)] == [2, 1, 2, 1]


def test_what_comes_later_and_has_died_is_named_before_anything_is_done_with_it() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    committed = ledger.committable()
    heir = Ledger(Delivered(0), committed, end=10, at_once=4)
    assert heir.names_any(heir.deliver(records(0, 1)))
    assert died(heir, end=10).crashes(2) == 1  # it has not been delivered to the one that died
    assert heir.names_any(heir.deliver(records(2, 9)))
    assert died(heir, end=10).crashes(2) == 2
    assert not heir.names_any(heir.deliver(records(10, 19)))


def test_those_first_that_no_commit_could_name() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    for offset in (0, 1, 4):
        ledger.begin(offset)
    heir = died(ledger, end=10, at_once=6)
    assert [record.offset for record in heir.likeliest_first(records(0, 9))] == [2, 3, 5, 0, 1, 4, 6, 7, 8, 9]
    assert [record.offset for record in ledger.likeliest_first(records(0, 2))] == [0, 1, 2]
    ledger.begin(8)
    heir = died(ledger, end=10, at_once=3)
    assert [record.offset for record in heir.likeliest_first(records(0, 9))] == [2, 0, 1, 4, 8, 3, 5, 6, 7, 9]


def test_of_suspects_the_one_that_is_found_is_first_and_then_those_that_had_just_begun() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    first = died(ledger, end=10)
    first.newest = {2, 3}
    second = died(first, end=10)
    assert [record.offset for record in second.likeliest_first(records(0, 9))] == [2, 3, 0, 1, 4, 5, 6, 7, 8, 9]
    second.begin(3)  # alone
    third = died(second, end=10)
    assert third.is_found(3)
    assert [record.offset for record in third.likeliest_first(records(0, 9))] == [3, 2, 0, 1, 4, 5, 6, 7, 8, 9]


def test_one_that_had_not_just_begun_is_found_when_it_was_alone_twice() -> None:
    """Workers that are killed from outside three times in a row may hit the same record each time."""
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    second = died(died(ledger, end=10), end=10)
    second.begin(1)  # alone
    third = died(second, end=10)
    assert not third.is_found(1)
    assert [record.offset for record in third.likeliest_first(records(0, 3))] == [1, 0, 2, 3]
    third.begin(1)
    assert died(third, end=10).is_found(1)


def test_one_that_its_process_ended_for_is_found_when_that_has_happened_three_times() -> None:
    ledger = Ledger(Delivered(0))
    found = []
    for _ in range(3):
        ledger.deliver(records(0, 9))
        ledger.blame(7)
        ledger.live = False
        ledger = died(ledger, end=10)
        found.append(ledger.is_found(7))
    assert found == [False, False, True]


def test_once_who_killed_is_found_the_others_are_back_at_their_first_death() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    first = died(ledger, end=10)
    first.newest = {1}
    second = died(first, end=10)
    second.begin(1)  # alone
    third = died(second, end=10)
    third.finish(1)
    assert third.acquit()
    assert not any(third.is_suspect(offset) for offset in range(10))
    assert not third.acquit()
    fourth = died(third, end=10)  # they were in hand: written down with the acquittal
    assert [fourth.crashes(offset) for offset in range(5)] == [2, 0, 2, 2, 1]


def test_what_is_acquitted_before_it_is_delivered_is_named_when_it_comes() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    second = died(died(ledger, end=10), end=10)
    heir = Ledger(Delivered(0), second.committable())
    heir.deliver(records(0, 0))
    assert heir.acquit()
    assert died(heir, end=10).crashes(3) == 1
    assert heir.names_any(heir.deliver(records(1, 9)))
    assert died(heir, end=10).crashes(3) == 2


def test_those_behind_what_is_finished_may_have_been_in_hand_too() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    for offset in range(1, 7):
        ledger.finish(offset)
    heir = died(ledger, end=10, at_once=3)
    assert [offset for offset in range(10) if heir.crashes(offset)] == [0, 7, 8]


def test_only_the_one_that_was_alone_is_counted_when_suspects_are_handled() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    second = died(died(ledger, end=10), end=10)
    second.begin(0)  # alone
    second.finish(0)
    second.begin(1)
    third = died(second, end=10)
    assert [third.crashes(offset) for offset in range(1, 6)] == [3, 2, 2, 1, 0]


def test_an_owner_that_leaves_in_order_raises_no_suspicion() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    for offset in range(10):
        ledger.begin(offset)
    ledger.finish(4)
    ledger.live = False
    heir = died(ledger, end=10)
    assert not any(heir.crashes(offset) for offset in range(10))


def test_a_record_that_is_blamed_is_counted_though_its_owner_leaves_in_order() -> None:
    ledger = Ledger(Delivered(0))
    ledger.deliver(records(0, 9))
    for offset in range(10):
        ledger.begin(offset)
    ledger.blame(7)
    ledger.live = False
    heir = died(ledger, end=10)
    assert [offset for offset in range(10) if heir.crashes(offset)] == [7]


def test_what_somebody_else_wrote_into_the_metadata_is_ignored() -> None:
    for metadata in ("hello", "18bcfe56800 x", "18bcfe56800 1.2.3.4 s1", "L zz"):
        ledger = Ledger(Delivered(0), OffsetAndMetadata(0, metadata))
        assert len(ledger.deliver(records(0, 3))) == 4


@given(
    st.dictionaries(st.integers(0, 400), st.integers(0, 3), max_size=200),
    st.dictionaries(st.integers(0, 400), st.integers(1, 3), max_size=200),
    st.sets(st.integers(1, 400), max_size=200),
    st.sets(st.integers(0, 400), max_size=50),
)
def test_metadata_says_what_it_was_told_as_far_as_there_is_room(
    in_hand: dict[int, int], known: dict[int, int], finished: set[int], newest: set[int]
) -> None:
    known = {offset: count for offset, count in known.items() if offset not in in_hand}
    metadata = encode(0, 1_700_000_000_000, finished=finished, in_hand=in_hand, known=known, lives=True, newest=newest)
    assert len(metadata) <= MAX_BYTES
    told = decode(metadata, 0, 0, 1_700_000_000_000)
    assert told.crashed
    assert told.finished <= finished
    wanted = known | {offset: count + (2 if offset in newest else 1) for offset, count in in_hand.items()}
    assert told.crashes.items() <= wanted.items()
    if len(metadata) < 1_000:
        assert (told.finished, told.crashes) == (finished, wanted)


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
