"""What listeners may hold: each by itself, all together, and those who take nothing or have left."""

import asyncio
from contextlib import ExitStack

import pytest

from ingress.following.channels import TooManyListenersError, TooManyOfUserError
from tests.ingress.channel_scene import FIRST, JOB, OTHER, Client, FakeTopic, Replica, completed


async def test_a_slow_listener_is_sent_away_and_goes_on_where_it_was() -> None:
    replica = Replica(topic := FakeTopic(), max_job_bytes=2000)
    slow, fast = replica.listen(fresh=True), replica.listen()
    topic.tell(FIRST, 0, "begin ")
    await slow.until("begin ")
    text = "begin "
    for n in range(1, 60):
        topic.tell(FIRST, n, f"w{n} " * 10)
        text += f"w{n} " * 10
        await fast.until(text)  # held up by nobody
    assert replica.channels.budget.held <= 2100
    await slow.whole()
    assert "Last-Event-ID" in slow.comments[-1]
    assert slow.text == "begin "
    replica.finish(completed(text, topic.range(FIRST, 0, 59)))
    resumed = Client(replica.listen(after=slow.last_id).listener, slow.text, slow.last_id)
    await resumed.whole()
    assert resumed.text == text
    assert "restart" not in resumed.names


async def test_what_all_hold_together_is_bounded() -> None:
    replica = Replica(topic := FakeTopic(), max_bytes=3000)
    with replica.channels.listen(OTHER, after=None, since_ms=None) as other:
        for n in range(100):
            topic.tell(FIRST, n, "x" * 50, job_id=OTHER)
        assert replica.channels.budget.held <= 3100
        assert "Last-Event-ID" in (await Client(other).whole()).comments[-1]
    await asyncio.sleep(0.01)
    assert replica.channels.budget.held == 0  # all of it is given back


async def test_what_is_heard_while_the_past_is_read_is_bounded() -> None:
    replica = Replica(topic := FakeTopic(), max_job_bytes=2000)
    topic.tell(FIRST, 0, "x")
    topic.held.clear()
    client = replica.listen()
    await asyncio.sleep(0.01)
    for n in range(1, 50):
        topic.tell(FIRST, n, "x" * 50)
    await client.whole()
    assert "Last-Event-ID" in client.comments[-1]
    assert replica.channels.budget.held <= 2100


async def test_no_more_listen_than_may() -> None:
    replica = Replica(FakeTopic(), max_listeners=2)
    replica.listen()
    with replica.channels.listen(OTHER, after=None, since_ms=None), pytest.raises(TooManyListenersError):
        replica.listen()
    replica.listen()


async def test_a_past_that_cannot_be_read_sends_them_away() -> None:
    replica = Replica(topic := FakeTopic())
    topic.tell(FIRST, 0, "x")
    topic.unreadable = True
    client = await replica.listen().whole()
    assert "away: go on with Last-Event-ID" in client.comments[-1]


async def test_a_replica_that_stops_sends_them_away() -> None:
    replica = Replica(topic := FakeTopic())
    replica.channels.start()
    client = replica.listen(fresh=True)
    topic.tell(FIRST, 0, "x")
    await client.until("x")
    replica.draining = True
    await client.whole()
    assert "stopping" in client.comments[-1]
    await replica.channels.stop()


async def test_silence_is_broken_by_comments() -> None:
    client = Replica(FakeTopic()).listen(fresh=True)
    await client.take()
    assert client.comments == [""]


async def test_what_nobody_listens_to_is_let_go() -> None:
    replica = Replica(topic := FakeTopic())
    with replica.channels.listen(JOB, after=None, since_ms=None):
        topic.tell(FIRST, 0, "x" * 100)
        assert replica.channels.budget.held > 100
    await asyncio.sleep(0.01)
    assert (replica.channels.budget.held, replica.channels.listeners(JOB), topic.takers) == (0, 0, [])
    assert replica.follower.waiters(JOB) == 0


async def test_one_who_leaves_at_once_leaves_nothing_behind() -> None:
    replica = Replica(topic := FakeTopic())
    with replica.channels.listen(JOB, after=None, since_ms=None):
        pass  # before anything has begun
    await asyncio.sleep(0.01)
    assert (topic.takers, replica.follower.waiters(JOB)) == ([], 0)


async def test_one_user_listens_to_so_many_at_once_and_others_to_theirs() -> None:
    channels = Replica(FakeTopic()).channels
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(channels.listen(JOB, after=None, since_ms=None, user_id="alice", most=2))
        with (
            pytest.raises(TooManyOfUserError),
            channels.listen(OTHER, after=None, since_ms=None, user_id="alice", most=2),
        ):
            pass
        stack.enter_context(channels.listen(JOB, after=None, since_ms=None, user_id="bob", most=2))
    with channels.listen(JOB, after=None, since_ms=None, user_id="alice", most=1):
        pass
    assert not channels._of_users
