"""What listeners are told: decided by the log alone, the same wherever and whenever they listen."""

import asyncio
import random
from uuid import UUID

import pytest

from ingress.outcome import Outcome
from schemas.events import JobProgressed
from tests.factories import NOW
from tests.ingress.channel_scene import (
    FIRST,
    JOB,
    OTHER,
    PARTITION,
    SECOND,
    THIRD,
    Client,
    FakeTopic,
    Replica,
    completed,
)


async def test_a_live_answer_is_told_and_ends() -> None:
    replica = Replica(topic := FakeTopic())
    client = replica.listen(fresh=True)
    where = topic.tell_all(FIRST, "Air ", "scatters.")
    replica.finish(completed("Air scatters.", where))
    await client.whole()
    assert (client.text, client.names[-1]) == ("Air scatters.", "finished")
    assert client.body["result"]["result"]["text"] == "Air scatters."
    assert client.last_id == f"{PARTITION}-1"
    assert topic.reads == 0


async def test_a_late_listener_reads_all_of_it_from_the_topic() -> None:
    replica = Replica(topic := FakeTopic())
    topic.tell(SECOND, 0, "another's", job_id=OTHER)
    where = topic.tell_all(FIRST, "Air ", "scatters.")
    replica.finish(completed("Air scatters.", where))
    client = await replica.listen().whole()
    assert (client.text, client.names) == ("Air scatters.", ["delta", "delta", "finished"])
    assert topic.reads == 1


async def test_ten_listeners_cost_one_read() -> None:
    replica = Replica(topic := FakeTopic())
    topic.held.clear()
    where = topic.tell_all(FIRST, "Air ", "scatters.")
    replica.finish(completed("Air scatters.", where))
    clients = [replica.listen() for _ in range(10)]
    reading = asyncio.gather(*(client.whole() for client in clients))
    await asyncio.sleep(0.01)
    topic.held.set()
    await reading
    assert {client.text for client in clients} == {"Air scatters."}
    assert topic.reads == 1


@pytest.mark.parametrize(("room", "reads"), [(10**6, 1), (400, 3)])
async def test_who_comes_a_moment_after_the_others_needs_no_read(room: int, reads: int) -> None:
    """A finished answer is held for that long, where there is room for many more."""
    replica = Replica(topic := FakeTopic(), linger_s=60, max_bytes=room)
    where = topic.tell_all(FIRST, "x" * 100, "y" * 100)
    replica.finish(completed("x" * 100 + "y" * 100, where))
    for _ in range(3):
        with replica.channels.listen(JOB, after=None, since_ms=1e12) as listener:
            assert (await Client(listener).whole()).text == "x" * 100 + "y" * 100
        await asyncio.sleep(0.01)
    assert topic.reads == reads
    await replica.channels.stop()
    assert replica.channels.budget.held == 0


async def test_one_who_comes_in_the_middle_hears_the_beginning_first() -> None:
    replica = Replica(topic := FakeTopic())
    topic.tell(FIRST, 0, "Air ")
    topic.tell(FIRST, 1, "scat")
    topic.held.clear()
    client = replica.listen()
    reading = asyncio.create_task(client.whole())
    await asyncio.sleep(0.01)
    topic.tell(FIRST, 2, "ters.", final=True)  # while the past is being read
    topic.held.set()
    await asyncio.sleep(0.01)
    replica.finish(completed("Air scatters.", topic.range(FIRST, 0, 2)))
    await reading
    assert client.text == "Air scatters."
    assert client.names == ["delta"] * 3 + ["finished"]
    assert topic.reads == 1  # what came meanwhile was not lost


async def test_nothing_is_read_where_nothing_can_have_been_told() -> None:
    replica = Replica(topic := FakeTopic())
    client = replica.listen()  # a job of 2001, of a topic that is heard since 1970: it has not begun
    replica.finish(completed("quick"))
    await client.whole()
    assert (client.text, client.last_id, topic.reads) == ("quick", "end", 0)


async def test_a_replica_that_may_have_missed_the_beginning_looks_for_it() -> None:
    replica = Replica(topic := FakeTopic())
    topic.heard_since_ms = 2e12
    topic.begun_at = lambda key: None  # type: ignore[method-assign]  # it was forgotten
    topic.tell(FIRST, 0, "Air ")
    client = replica.listen()
    await client.until("Air ")
    assert topic.reads == 1


async def test_another_execution_is_a_restart_and_what_is_left_of_the_first_is_passed_over() -> None:
    replica = Replica(topic := FakeTopic())
    client = replica.listen(fresh=True)
    topic.tell(FIRST, 0, "old ")
    await client.until("old ")
    topic.tell(SECOND, 0, "new ")
    topic.tell(FIRST, 1, "zombie ")
    topic.tell(SECOND, 1, "text", final=True)
    topic.tell(FIRST, 2, "more", final=True)
    replica.finish(completed("new text", topic.range(SECOND, 1, 3)))
    await client.whole()
    assert client.text == "new text"
    assert client.names == ["delta", "restart", "delta", "delta", "finished"]


async def test_a_zombie_that_ends_first_has_won_and_is_told_whole() -> None:
    replica = Replica(topic := FakeTopic())
    client = replica.listen(fresh=True)
    topic.tell(FIRST, 0, "old ")
    topic.tell(SECOND, 0, "new ")
    await client.until("new ")
    topic.tell(FIRST, 1, "thawed", final=True)
    replica.finish(completed("old thawed", topic.range(FIRST, 0, 2)))
    topic.tell(SECOND, 1, "text", final=True)
    await client.whole()
    assert client.text == "old thawed"
    assert client.names.count("restart") == 1


async def test_an_answer_that_another_try_gave_at_once_replaces_what_was_told() -> None:
    replica = Replica(topic := FakeTopic())
    client = replica.listen(fresh=True)
    topic.tell(FIRST, 0, "old ")
    await client.until("old ")
    replica.finish(completed("new"))
    await client.whole()
    assert (client.text, client.names) == ("new", ["delta", "restart", "delta", "finished"])


async def test_a_gap_is_filled_from_the_topic_without_saying_anything_twice() -> None:
    replica = Replica(topic := FakeTopic())
    client = replica.listen(fresh=True)
    topic.tell(FIRST, 0, "a")
    await client.until("a")
    (taker,) = topic.takers
    topic.takers.clear()
    topic.tell(FIRST, 1, "b")
    topic.takers.append(taker)
    topic.tell(FIRST, 2, "c", final=True)
    replica.finish(completed("abc", topic.range(FIRST, 0, 2)))
    await client.whole()
    assert (client.text, client.names) == ("abc", ["delta"] * 3 + ["finished"])


async def test_a_piece_that_was_sent_twice_is_told_once() -> None:
    replica = Replica(topic := FakeTopic())
    client = replica.listen(fresh=True)
    for sequence, text in ((0, "a"), (0, "a"), (1, "b"), (0, "a"), (1, "b"), (2, "c")):
        topic.tell(FIRST, sequence, text)
    replica.finish(completed("abc", topic.range(FIRST, 0, 5)))
    await client.whole()
    assert client.text == "abc"
    assert (await replica.listen().whole()).text == "abc"


async def test_an_outcome_that_comes_before_the_last_piece_waits_for_it() -> None:
    replica = Replica(topic := FakeTopic())
    client = replica.listen(fresh=True)
    topic.tell(FIRST, 0, "a")
    replica.finish(completed("ab", topic.range(FIRST, 0, 1)))
    reading = asyncio.create_task(client.whole())
    await asyncio.sleep(0.02)
    topic.tell(FIRST, 1, "b", final=True)
    await reading
    assert (client.text, topic.reads) == ("ab", 0)


@pytest.mark.parametrize("how", ["expired", "unreadable"])
async def test_what_the_topic_does_not_give_is_told_from_the_outcome(how: str) -> None:
    replica = Replica(topic := FakeTopic())
    where = topic.tell_all(FIRST, "Air ", "scatters.")
    topic.unreadable, topic.kept_from = how == "unreadable", 1
    replica.finish(completed("Air scatters.", where))
    client = await replica.listen().whole()
    assert (client.text, client.names) == ("Air scatters.", ["delta", "finished"])
    again = await replica.listen(after=client.last_id).whole()
    assert again.names == ["finished"]


async def test_a_failed_job_ends_with_its_error() -> None:
    replica = Replica(topic := FakeTopic())
    client = replica.listen(fresh=True)
    topic.tell(FIRST, 0, "a")
    await client.until("a")
    replica.finish(Outcome("error", None, {"code": "provider-unreachable", "message": "it broke off"}))
    await client.whole()
    assert client.names == ["delta", "error"]
    assert client.body == {
        "job_id": str(JOB), "status": "error",
        "error": {"code": "provider-unreachable", "message": "it broke off"},
    }  # fmt: skip


async def test_a_refusal_is_told_as_text() -> None:
    replica = Replica(FakeTopic())
    replica.finish(Outcome("completed", {"status": "refused", "answer": "I cannot do that."}, None))
    assert (await replica.listen().whole()).text == "I cannot do that."


async def test_what_happens_on_the_way_is_told() -> None:
    replica = Replica(FakeTopic())
    client = replica.listen(fresh=True)
    event = JobProgressed(job_id=JOB, user_id="alice", stage="generate_completion", state="started", at=NOW)
    replica.follower._take_progressed(str(JOB).encode(), event.model_dump_json().encode())
    await client.take()
    late = replica.listen()
    await late.take()
    assert client.names == late.names == ["progress"]


async def test_a_stream_that_is_cut_and_resumed_anywhere_is_whole() -> None:
    """With takeovers and zombies in it, at two replicas of which one lags, live and after the end."""
    for seed in range(60):
        dice = random.Random(seed)
        topic, late = FakeTopic(), FakeTopic()
        replicas = [Replica(topic), Replica(late)]
        script: list[tuple[UUID, int, str]] = []
        texts = {FIRST: "abcdefgh", SECOND: "ijklmnop", THIRD: "qrstuvwx"}
        winner = dice.choice(list(texts))
        left = {execution: list(enumerate(text)) for execution, text in texts.items()}
        order = [FIRST] * 8 + [SECOND] * 8 + [THIRD] * 8
        for _ in range(dice.randrange(20)):  # mostly one after another, a little mixed
            one = dice.randrange(23)
            order[one], order[one + 1] = order[one + 1], order[one]
        script = [(execution, *left[execution].pop(0)) for execution in order]
        offsets = [n for n, (execution, _, _) in enumerate(script) if execution == winner]
        outcome = completed(texts[winner], topic.range(winner, offsets[0], offsets[-1]))
        text, last_id, told, told_late, is_over = "", "", 0, 0, False
        for step in range(400):
            if dice.random() < 0.5 and told < len(script):
                topic.tell(*script[told])
                told += 1
            if dice.random() < 0.4 and told_late < told:
                late.tell(*script[told_late])
                told_late += 1
            if told == len(script):
                replicas[0].finish(outcome)
            if told_late == len(script):
                replicas[1].finish(outcome)
            replica = dice.choice(replicas)
            with replica.channels.listen(JOB, after=last_id or None, since_ms=1e12) as listener:
                client = Client(listener, text, last_id)
                for _ in range(dice.randrange(3)):
                    if dice.random() < 0.7 or (told == len(script) and told_late == len(script)):
                        try:
                            async with asyncio.timeout(0.002 if step < 300 else 1):
                                is_over = not await client.take() or is_over
                        except TimeoutError:
                            break
                text, last_id = client.text, client.last_id
                if client.body is not None:
                    is_over = True
            if is_over:
                break
        assert (is_over, text) == (True, texts[winner]), seed
        for replica in replicas:
            await replica.channels.stop()


async def test_a_replica_that_lags_waits_until_it_knows_what_the_client_has() -> None:
    replica = Replica(topic := FakeTopic())
    topic.tell(FIRST, 0, "a")
    client = replica.listen(after="3-1")  # another replica has told "b" already
    await asyncio.sleep(0.01)
    reading = asyncio.create_task(client.whole())
    await asyncio.sleep(0.01)
    topic.tell(FIRST, 1, "b")
    topic.tell(FIRST, 2, "c", final=True)
    replica.finish(completed("abc", topic.range(FIRST, 0, 2)))
    await reading
    assert (client.text, client.names) == ("c", ["delta", "finished"])


@pytest.mark.parametrize("after", ["nonsense", "7-0", "3-99", "3-0", "end", "3-99999999999999999999"])
async def test_an_id_that_was_never_given_for_this_text_is_answered_with_all_of_it(after: str) -> None:
    replica = Replica(topic := FakeTopic())
    topic.tell(SECOND, 0, "another's", job_id=OTHER)
    where = topic.tell_all(FIRST, "Air ", "scatters.")
    replica.finish(completed("Air scatters.", where))
    client = await replica.listen(after=after).whole()
    assert client.names == ["restart", "delta", "delta", "finished"]


async def test_a_restart_leaves_no_id_to_go_on_from() -> None:
    replica = Replica(topic := FakeTopic())
    topic.tell_all(FIRST, "new")
    client = replica.listen(after="7-0")
    assert (await anext(client.listener.events())).startswith(b"id:\nevent: restart\n")


# --- bounds ---
