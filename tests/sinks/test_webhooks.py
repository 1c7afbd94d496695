import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import openai
import orjson
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from processors.errors import RetryableError
from schemas.audio_links import WEBHOOK_LINK_S, AudioLinks
from schemas.envelope import Attributes, Envelope
from schemas.events import JobFinished
from sinks.egress import EgressClient
from sinks.postgres import OutcomeSink
from sinks.webhook_body import MAX_BODY_BYTES, due_webhook
from sinks.webhook_signing import MAX_ROTATIONS, RotatedTooOftenError, WebhookSecrets, signed_headers
from sinks.webhook_store import WebhookStore
from sinks.webhooks import SCHEDULE_S, WebhookSender
from tests.conftest import SECRET, PostgresForTests
from tests.factories import NOW, job, job_finished
from tests.sinks.conftest import Bench, Receiver
from tests.waiting import until


def test_a_large_result_is_left_out_and_said_to_be() -> None:
    finished = job_finished(job=job(callback_url="https://x.example/"), result={"text": "x" * 30_000})
    body = due_webhook(finished)[4]
    assert len(body) < MAX_BODY_BYTES
    assert '"truncated":true' in body
    assert f"/jobs/{finished.job.job_id}" in body


def test_only_what_has_spoken_tells_where_it_is_heard_and_for_how_long() -> None:
    links, at = AudioLinks([SECRET]), NOW.timestamp()
    speech = job(kind="speech", callback_url="https://x.example/")

    def told(finished: JobFinished) -> Any:
        return orjson.loads(due_webhook(finished, audio_links=links)[4])["data"].get("audio_url")

    spoken = job_finished(job=speech)
    assert told(spoken) == told(spoken) == links.path(speech.job_id, now_s=at, good_for_s=WEBHOOK_LINK_S)
    query = dict(part.split("=") for part in told(spoken).partition("?")[2].split("&"))
    expires, signature = int(query["expires"]), query["signature"]
    assert links.verdict(speech.job_id, expires, signature, now_s=at + 86_399) == "good"
    assert links.verdict(speech.job_id, expires, signature, now_s=at + 86_400) == "expired"
    assert told(job_finished(job=speech, code="timeout")) is None
    assert told(job_finished(job=job(callback_url="https://x.example/"))) is None


@pytest.mark.parametrize("keys", [[b"k" * 32], [b"n" * 32, b"k" * 32]])
def test_signatures_are_those_of_standard_webhooks_and_of_openais_client(keys: list[bytes]) -> None:
    body = b'{"type":"job.completed","timestamp":"2026-01-01T00:00:00Z","data":{"job_id":"1"}}'
    headers = dict(signed_headers("msg_1", body, keys, now=datetime.now(UTC)))
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    assert Webhook(secret).verify(body, headers)["type"] == "job.completed"
    client = openai.OpenAI(api_key="none")
    client.webhooks.verify_signature(body, headers, secret=secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.verify_signature(body + b" ", headers, secret=secret)
    client.close()


@pytest.mark.integration
async def test_an_outcome_is_delivered_once_and_verifies(bench: Bench, receiver: tuple[Receiver, str]) -> None:
    there, url = receiver
    job_id = await bench.due(url)
    assert await bench.send() == 1
    assert await bench.send() == 0
    ((headers, body),) = there.calls
    payload = Webhook(await bench.secrets.current("alice")).verify(body, headers)
    assert payload["type"] == "job.completed"
    assert payload["data"]["job_id"] == str(job_id)
    (attempt,) = await WebhookStore(bench.pool).attempts(job_id)
    assert (attempt["attempt"], attempt["status_code"]) == (1, 200)


@pytest.mark.integration
async def test_failures_follow_the_schedule_with_one_id_and_body(bench: Bench, receiver: tuple[Receiver, str]) -> None:
    there, url = receiver
    there.answers = [web.Response(status=500), "close", web.Response(status=302, headers={"location": url}),
                     web.Response(status=404)]  # fmt: skip
    job_id = await bench.due(url)
    for number, wait in enumerate(SCHEDULE_S):
        bench.clock.now += timedelta(seconds=wait * 0.85)
        assert await bench.send() == (1 if number == 0 else 0)
        bench.clock.now += timedelta(seconds=wait * 0.3)
        assert await bench.send() == (0 if number == 0 else 1)
    bench.clock.now += timedelta(days=30)
    assert await bench.send() == 0
    assert len(there.calls) == len(SCHEDULE_S)
    assert len({(headers["webhook-id"], body) for headers, body in there.calls}) == 1
    attempts = await WebhookStore(bench.pool).attempts(job_id)
    assert "next_at" not in attempts[-1]
    assert attempts[1]["error"].startswith("not delivered")


@pytest.mark.integration
async def test_retry_after_is_honoured_and_gone_is_the_end(bench: Bench, receiver: tuple[Receiver, str]) -> None:
    there, url = receiver
    there.answers = [web.Response(status=429, headers={"retry-after": "3600"}), web.Response(status=410)]
    await bench.due(url)
    await bench.send()
    bench.clock.now += timedelta(seconds=3500)
    assert await bench.send() == 0
    bench.clock.now += timedelta(seconds=101)
    assert await bench.send() == 1
    bench.clock.now += timedelta(days=3)
    assert await bench.send() == 0


@pytest.mark.integration
async def test_one_killed_after_posting_is_sent_again_with_the_same_id(
    bench: Bench, receiver: tuple[Receiver, str]
) -> None:
    there, url = receiver
    await bench.due(url)
    store = WebhookStore(bench.pool)
    (leased,) = await store.lease(1, now=bench.clock(), per_host=4, busy={})  # and then its process is gone
    assert await bench.send() == 0
    bench.clock.now += timedelta(seconds=61)
    assert await bench.send() == 1
    assert there.calls[0][0]["webhook-id"] == leased.webhook_id
    late = await store.record(leased, at=bench.clock(), status_code=500, error="late", state="due", next_at=None)
    assert late is False


@pytest.mark.integration
async def test_two_senders_send_each_once(bench: Bench, receiver: tuple[Receiver, str]) -> None:
    there, url = receiver
    await bench.due(url, count=20)
    other = bench.another()

    async def all_sent() -> bool:
        await asyncio.gather(bench.sender.send_due(), other.send_due())
        await asyncio.gather(bench.sender.settle(), other.settle())
        return len(there.calls) >= 20

    await until(all_sent)
    await other.close()
    assert len({headers["webhook-id"] for headers, _ in there.calls}) == 20 == len(there.calls)


@pytest.mark.integration
async def test_a_receiver_that_hangs_delays_no_other(bench: Bench, receiver: tuple[Receiver, str]) -> None:
    there, url = receiver
    hanging = Receiver()
    hanging.answers = ["hang"]
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", hanging.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await bench.due(f"http://127.0.0.1:{runner.addresses[0][1]}/slow", count=300)
    await bench.due(url)
    sender = bench.another(timeout_s=60)
    running = asyncio.create_task(sender.run())
    await until(lambda: there.calls, within_s=30)  # while the first of those that hang are still waited for
    assert len(hanging.calls) <= 4
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await sender.close()
    await runner.cleanup()


@pytest.mark.integration
async def test_after_a_rotation_both_secrets_sign_for_a_day(bench: Bench, receiver: tuple[Receiver, str]) -> None:
    there, url = receiver
    old = await bench.secrets.current("alice")
    new = await bench.secrets.rotate("alice")
    assert old != new
    await bench.due(url)
    await bench.send()
    headers, body = there.calls[0]
    with openai.OpenAI(api_key="none") as client:
        assert client.webhooks.unwrap(body, headers, secret=new).to_dict()["type"] == "job.completed"
    Webhook(old).verify(body, headers)
    Webhook(new).verify(body, headers)
    assert len(await bench.secrets.signing_keys("alice", datetime.now(UTC) + timedelta(hours=25))) == 1


@pytest.mark.integration
async def test_several_rotations_in_a_day_all_sign_and_too_many_are_refused(bench: Bench) -> None:
    made = [await bench.secrets.current("alice")]
    made += [await bench.secrets.rotate("alice") for _ in range(MAX_ROTATIONS)]
    with pytest.raises(RotatedTooOftenError):
        await bench.secrets.rotate("alice")
    keys = await bench.secrets.signing_keys("alice", datetime.now(UTC))
    signing = ["whsec_" + base64.b64encode(key).decode() for key in keys]
    assert signing == made[::-1]
    async with bench.pool.connection() as connection:  # the first two were more than a day ago
        await connection.execute(
            "UPDATE webhook_secrets SET rotations[1] = now() - interval '25 h', rotations[2] = now() - interval '25 h'"
        )
    assert len(await bench.secrets.signing_keys("alice", datetime.now(UTC))) == MAX_ROTATIONS + 1 - 2
    assert await bench.secrets.rotate("alice") not in made
    assert len(await bench.secrets.signing_keys("alice", datetime.now(UTC))) == MAX_ROTATIONS + 1 - 2 + 1


@pytest.mark.integration
async def test_a_new_deployment_secret_signs_beside_the_one_that_it_replaces(
    bench: Bench, receiver: tuple[Receiver, str]
) -> None:
    there, url = receiver
    known_to_users = await bench.secrets.current("alice")
    bench.secrets = WebhookSecrets(bench.pool, masters=["another-deployment-secret", SECRET])
    bench.sender = bench.another()
    await bench.due(url)
    await bench.send()
    headers, body = there.calls[0]
    Webhook(known_to_users).verify(body, headers)
    Webhook(await bench.secrets.current("alice")).verify(body, headers)
    assert await bench.secrets.current("alice") != known_to_users


@pytest.mark.integration
async def test_a_private_target_is_refused_and_not_tried_again(bench: Bench, receiver: tuple[Receiver, str]) -> None:
    there, url = receiver
    closed = WebhookSender(bench.pool, bench.secrets, allow_private=False, timeout_s=2, now=bench.clock)
    job_id = await bench.due(url)
    await closed.send_due()
    await closed.settle()
    await closed.close()
    assert there.calls == []
    (attempt,) = await WebhookStore(bench.pool).attempts(job_id)
    assert attempt["error"].startswith("refused")
    assert "next_at" not in attempt


@pytest.mark.integration
@pytest.mark.parametrize("url", ["https://[::1", "https://a..b/", "https://" + "a" * 64 + ".com/", "http://:80:80/"])
async def test_a_target_that_is_no_url_is_given_up_and_stops_nobody(
    bench: Bench, receiver: tuple[Receiver, str], url: str
) -> None:
    """Anybody may publish such a `callback_url` straight to the topic."""
    there, good = receiver
    job_id = await bench.due(url)
    await bench.due(good)
    assert await bench.send() == 2
    assert len(there.calls) == 1
    (attempt,) = await WebhookStore(bench.pool).attempts(job_id)
    assert attempt["error"].startswith("refused")
    bench.clock.now += timedelta(days=3)
    assert await bench.send() == 0


@pytest.mark.integration
@pytest.mark.parametrize("said", ["\xb2", "soon", "-5", "9" * 400, "Fri, 31 Dec 99999 00:00:00 GMT"])
async def test_no_retry_after_keeps_an_attempt_from_being_recorded(
    bench: Bench, receiver: tuple[Receiver, str], said: str
) -> None:
    there, url = receiver
    there.answers = [web.Response(status=503, headers={"retry-after": said}), web.Response(status=200)]
    job_id = await bench.due(url)
    await bench.send()
    assert len(await WebhookStore(bench.pool).attempts(job_id)) == 1
    bench.clock.now += timedelta(hours=24, minutes=1)
    assert await bench.send() == 1


@pytest.mark.integration
async def test_a_bug_counts_as_an_attempt(
    bench: Bench, receiver: tuple[Receiver, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(EgressClient, "post", broken)
    job_id = await bench.due(receiver[1])
    assert await bench.send() == 1
    (attempt,) = await WebhookStore(bench.pool).attempts(job_id)
    assert attempt["error"] == "not delivered: KeyError"
    assert attempt["next_at"] > bench.clock()


@pytest.mark.integration
async def test_an_outcome_that_replaces_a_refusal_is_told_too(bench: Bench, receiver: tuple[Receiver, str]) -> None:
    there, url = receiver
    of, sink = job(callback_url=url), OutcomeSink(bench.pool)
    for finished in (job_finished(job=of, code="rate-limited"), job_finished(job=of)):
        await sink.write([Envelope(Attributes("e", "/s", "t"), finished)])
        bench.clock.now = datetime.now(UTC) + timedelta(seconds=1)
        assert await bench.send() == 1
        assert await bench.send() == 0
    assert [orjson.loads(body)["type"] for _, body in there.calls] == ["job.failed", "job.completed"]


@pytest.mark.integration
async def test_a_sender_wakes_for_what_its_own_sink_wrote_and_outlives_postgres(
    bench: Bench, receiver: tuple[Receiver, str], postgres: PostgresForTests, database: str,
) -> None:  # fmt: skip
    there, url = receiver
    name = urlsplit(database).path[1:]
    sink = OutcomeSink(bench.pool, webhook_due=bench.sender.wake)

    async def finish() -> None:
        await sink.write([Envelope(Attributes("e", "/s", "t"), job_finished(job=job(callback_url=url)))])

    bench.clock.now = datetime.now(UTC) + timedelta(hours=1)
    running = asyncio.create_task(bench.sender.run())
    try:
        await finish()
        await until(lambda: len(there.calls) == 1)
        other = await asyncpg.connect(postgres.dsn)
        await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await other.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        bench.sender.wake()
        with pytest.raises(RetryableError):
            await finish()
        await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await other.close()
        await finish()
        await until(lambda: len(there.calls) == 2)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
