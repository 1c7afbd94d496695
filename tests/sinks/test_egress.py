import pytest

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
    "https://" + "a" * 3000, "https://[::1", "javascript:alert(1)",
]  # fmt: skip
TAKEN = ["https://example.com/hook", "https://8.8.8.8/", "https://[2606:4700::1111]/x?y=1", "https://example.com:443/"]


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


async def test_it_connects_to_the_address_that_was_checked_and_keeps_the_name() -> None:
    """A nameserver that changes its answer is asked once; the Host header stays the name."""
    import asyncio

    asked: list[str] = []
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    client = EgressClient(allow_private=True, resolve=resolve)
    reply = await client.post(f"http://hooks.example:{port}/x", b"{}", {})
    assert reply.status_code == 302  # and nobody went there
    assert asked == ["hooks.example"]
    assert f"host: hooks.example:{port}".encode() in heard[0].lower()
    await client.close()
    server.close()
    await server.wait_closed()
