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

from sinks.egress import EgressClient, EgressRefusedError, check_url

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
