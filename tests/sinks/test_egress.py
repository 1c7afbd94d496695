import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sinks.egress import Allowed, EgressClient, EgressRefusedError, check_url

REFUSED = [
    "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/",
    "https://0177.0.0.1/", "https://017700000001/", "https://127.0.0.1./", "https://0/", "https://0.0.0.0/",
    "https://10.0.0.1/", "https://10.255.255.255/", "https://172.16.0.1/", "https://172.31.255.255/",
    "https://192.168.1.1/", "https://169.254.169.254/latest/meta-data", "https://100.64.0.1/", "https://100.127.0.1/",
    "https://192.0.0.1/", "https://192.0.2.1/", "https://198.18.0.1/", "https://198.51.100.7/", "https://203.0.113.9/",
    "https://192.88.99.1/", "https://192.31.196.1/", "https://192.52.193.1/", "https://192.175.48.1/",
    "https://224.0.0.1/", "https://239.255.255.250/", "https://240.0.0.1/", "https://255.255.255.255/",
    "https://[::1]/", "https://[::]/", "https://[0:0:0:0:0:0:0:1]/", "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:8.8.8.8]/", "https://[::ffff:7f00:1]/", "https://[::127.0.0.1]/", "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::8.8.8.8]/", "https://[64:ff9b:1::1]/", "https://[2002:7f00:1::]/", "https://[2002::1]/",
    "https://[2001::1]/", "https://[2001:db8::1]/", "https://[3fff::1]/", "https://[fc00::1]/", "https://[fd12::1]/",
    "https://[fe80::1]/", "https://[fe80::1%25eth0]/", "https://[fec0::1]/", "https://[ff02::1]/", "https://[100::1]/",
    "https://[5f00::1]/", "https://[2620:4f:8000::1]/", "https://[::ffff:0:127.0.0.1]/",
    "http://example.com/", "https://example.com:8443/", "https://user@example.com/", "https://user:pw@example.com/",
    "https://example.com@127.0.0.1/", "ftp://example.com/", "file:///etc/passwd", "https://", "https:///x",
    "https://exa mple.com/", "https://example.com\\@127.0.0.1/", "https://example.com:99999/", "gopher://x/",
    "https://①②⑦.0.0.1/", "https://127。0。0。1/", "https://a..b/", "https://" + "a" * 64 + ".com/",
    "https://" + "a" * 3000, "https://[::1", "javascript:alert(1)",
]  # fmt: skip
TAKEN = [
    "https://exämple.com/",
    "https://example.com/hook",
    "https://8.8.8.8/",
    "https://[2606:4700::1111]/x?y=1",
    "https://example.com:443/",
]


@pytest.mark.parametrize("url", REFUSED)
def test_a_target_that_is_not_public_is_refused_in_every_spelling(url: str) -> None:
    with pytest.raises(EgressRefusedError):
        check_url(url, allow_private=False)


@pytest.mark.parametrize("url", TAKEN)
def test_a_public_target_is_taken(url: str) -> None:
    check_url(url, allow_private=False)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["fe80::1%eth0"], [], ["?"]])
async def test_a_name_with_any_address_that_is_not_public_is_refused(addresses: list[str]) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    client = EgressClient(resolve=resolve)
    with pytest.raises(EgressRefusedError):
        await client.post("https://rebinding.example/", b"{}", {})
    await client.close()


HERE = Allowed(hosts=frozenset({"hooks.corp.example", "10.1.2.3", "127.0.0.9"}), ports=frozenset({8443}))


def test_the_table_is_long_enough_to_mean_something() -> None:
    assert len(set(REFUSED)) >= 60


@pytest.mark.parametrize("url", [
    "http://hooks.corp.example/x", "http://HOOKS.corp.example./x", "https://example.com:8443/", "https://10.1.2.3/",
    "http://127.0.0.9:8443/", "https://example.com:80/",
])  # fmt: skip
def test_what_the_operator_has_named_is_taken(url: str) -> None:
    check_url(url, allowed=HERE)


@pytest.mark.parametrize("url", [
    "http://example.com/", "http://hooks.corp.example.evil.example/", "http://xhooks.corp.example/",
    "https://example.com:8444/", "https://10.1.2.4/", "https://127.0.0.1/", "https://0177.0.0.9/", "https://2130706441/",
    "https://[::ffff:10.1.2.3]/", "ftp://hooks.corp.example/", "http://user@hooks.corp.example/",
])  # fmt: skip
def test_what_is_beside_it_is_not(url: str) -> None:
    with pytest.raises(EgressRefusedError):
        check_url(url, allowed=HERE)


@pytest.mark.parametrize(("addresses", "is_taken"), [
    (["10.0.0.7"], True), (["192.168.1.1"], True), (["fd00::1"], True), (["93.184.216.34", "10.0.0.7"], True),
    (["127.0.0.1"], False), (["169.254.169.254"], False), (["10.0.0.7", "169.254.169.254"], False), (["::1"], False),
    (["fe80::1"], False), (["0.0.0.0"], False), (["224.0.0.1"], False), (["::ffff:10.0.0.7"], False),
])  # fmt: skip
async def test_a_named_host_may_be_in_a_private_network_and_never_on_this_machine_or_where_clouds_keep_keys(
    addresses: list[str], is_taken: bool
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    client = EgressClient(allowed=HERE, resolve=resolve)
    try:
        await client._checked_address("hooks.corp.example", 443)
        assert is_taken
    except EgressRefusedError:
        assert not is_taken
    with pytest.raises(EgressRefusedError):
        await client._checked_address("other.example", 443)
    await client.close()


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def target(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server on a free port, with the heads of the requests that it heard. It never ends a connection itself."""
    heard: list[bytes] = []
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                heard.append(head)
                await reader.readexactly(2)
                await answer(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving)
        server.close()
        await server.wait_closed()


async def to_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def replying(reply: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()

    return answer


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


OK = replying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


async def test_it_asks_for_the_name_once_and_keeps_it_and_follows_no_redirect() -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    found = replying(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")
    client = EgressClient(allow_private=True, resolve=resolve)
    async with target(found) as (port, heard):
        reply = await client.post(f"http://Hooks.exämple:{port}/x", b"{}", {})
    await client.close()
    assert reply.status_code == 302
    assert asked == ["hooks.xn--exmple-cua"]
    assert len(heard) == 1
    assert f"host: hooks.xn--exmple-cua:{port}".encode() in heard[0].lower()


async def test_a_name_that_nobody_can_have_is_refused_and_no_bug() -> None:
    client = EgressClient(allow_private=True)
    for url in ("http://a..b/", "http://[::1", "http://" + "a" * 64 + ".com/"):
        with pytest.raises(EgressRefusedError):
            await client.post(url, b"{}", {})
    await client.close()


async def test_a_receiver_that_hangs_is_left_after_the_timeout() -> None:
    client = EgressClient(allow_private=True, timeout_s=0.2)
    async with target(hang) as (port, heard):
        with pytest.raises((TimeoutError, httpx.TimeoutException)):
            await client.post(f"http://127.0.0.1:{port}/", b"{}", {})
        assert len(heard) == 1
    await client.close()


async def test_a_receiver_that_trickles_is_left_after_the_timeout() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.05)

    client = EgressClient(allow_private=True, timeout_s=0.3)
    async with target(trickle) as (port, _):
        with pytest.raises(TimeoutError):
            await client.post(f"http://127.0.0.1:{port}/", b"{}", {})
    await client.close()


async def test_no_more_than_64_kib_of_a_reply_are_read() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    client = EgressClient(allow_private=True, timeout_s=10)
    async with target(flood) as (port, _):
        assert (await client.post(f"http://127.0.0.1:{port}/", b"{}", {})).status_code == 200
    await client.close()
    assert sent < 50_000_000  # what the sockets' buffers hold, and not the whole of it


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    client = EgressClient(allow_private=True)
    async with target(OK) as (port, _):
        assert (await client.post(f"http://127.0.0.1:{port}/", b"{}", {})).status_code == 200
    await client.close()


async def test_tls_verifies_each_name_also_where_two_share_an_address(tmp_path: Path) -> None:
    certificate = tmp_path / "mallory.pem"
    certificate.write_bytes(certificate_of("mallory.example"))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    client = EgressClient(
        allow_private=True, resolve=to_loopback, tls=ssl.create_default_context(cafile=str(certificate))
    )  # fmt: skip
    async with target(OK, served) as (port, heard):
        assert (await client.post(f"https://mallory.example:{port}/", b"{}", {})).status_code == 200
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            await client.post(f"https://victim.example:{port}/", b"{}", {})
        assert len(heard) == 1
    await client.close()


async def test_a_get_hands_back_the_beginning_of_the_body_and_asks_for_no_coding() -> None:
    client = EgressClient(allow_private=True, max_reply_bytes=10)
    whole = replying(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789")
    longer = replying(b"HTTP/1.1 404 Not Found\r\ncontent-length: 11\r\n\r\n0123456789a")
    for answer, status, is_cut in ((whole, 200, False), (longer, 404, True)):
        async with get_target(answer) as (port, heard):
            reply = await client.get(f"http://127.0.0.1:{port}/?q=1", {"x-mine": "1", "accept-encoding": "gzip"})
        assert (reply.status_code, reply.body, reply.is_cut) == (status, b"0123456789", is_cut)
        assert heard[0].startswith(b"GET /?q=1 HTTP/1.1\r\n")
        assert b"x-mine: 1\r\n" in heard[0]
        assert b"accept-encoding: identity\r\n" in heard[0].lower()
    await client.close()


@pytest.mark.parametrize(("head", "why"), [
    (b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\n", "redirects"),
    (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n", "coding"),
])  # fmt: skip
async def test_a_get_follows_no_redirect_and_unpacks_nothing(head: bytes, why: str) -> None:
    client = EgressClient(allow_private=True)
    async with get_target(replying(head + b"content-length: 0\r\n\r\n")) as (port, heard):
        with pytest.raises(EgressRefusedError, match=why):
            await client.get(f"http://127.0.0.1:{port}/")
        assert len(heard) == 1
    await client.close()


async def test_a_nameserver_that_moves_a_name_meanwhile_moves_nothing() -> None:
    """What was checked is what is connected to: the name is asked for once, whatever it would say the next time."""
    answers = [["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]]
    connected: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        return answers.pop(0)

    client = EgressClient(resolve=resolve, timeout_s=0.5)

    def transport(request: httpx.Request) -> httpx.Response:
        connected.append(request.url.host)
        assert request.extensions["sni_hostname"] == "rebinding.example"
        return httpx.Response(200, stream=httpx.ByteStream(b"ok"))

    client._client = httpx.AsyncClient(transport=httpx.MockTransport(transport))
    assert (await client.get("https://rebinding.example/")).body == b"ok"
    with pytest.raises(EgressRefusedError):  # the next call sees the new address, and is refused
        await client.get("https://rebinding.example/")
    assert connected == ["93.184.216.34"]
    await client.close()


@asynccontextmanager
async def get_target(answer: Answer) -> AsyncIterator[tuple[int, list[bytes]]]:
    """As `target`, for calls that have no body."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await server.wait_closed()


def certificate_of(name: str) -> bytes:
    """A self-signed certificate with its key, as PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return certificate.public_bytes(pem) + key.private_bytes(pem, pkcs8, serialization.NoEncryption())
