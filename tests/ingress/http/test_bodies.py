"""Bodies that bring an image: every way in gives the same upload, and none holds more than it may."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from ingress.chat import AsyncChatRequest, ChatBody
from ingress.http import uploads
from ingress.http.bodies import LARGEST_BODY_BYTES, Bodies
from ingress.http.middleware import Edge
from ingress.http.problems import install
from ingress.http.uploads import Places
from schemas.requests import MAX_IMAGE_BYTES
from tests.factories import user_updated
from tests.pictures import GIF, JPEG, WEBP_LOSSY, base64_of, png

MOST = 1_000_000
LARGE = png(100, 100, size=3_000_000)


class Door:
    """A route that reads bodies. `seen`: what came, with the image's bytes."""

    def __init__(self) -> None:
        self.places = Places(most=2, per_user=1, wait_s=0.05)
        self.bodies = Bodies(self.places, max_body_bytes=MOST, read_within_s=30)
        self.seen: list[tuple[ChatBody, bytes | None, bytes | None]] = []
        self.user = user_updated()
        app = FastAPI()
        install(app)

        @app.post("/chat/", max_body_size=LARGEST_BODY_BYTES)
        async def chat(request: Request) -> None:
            key = request.headers.get("idempotency-key")
            with await self.bodies.read(ChatBody, request, self.user, key) as sent:
                content = sent.upload.content if sent.upload else None
                self.seen.append((sent.body, content, sent.key.fingerprint if sent.key else None))

        app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MOST)
        app.add_middleware(Edge, max_body_bytes=MOST, larger={"/chat/": LARGEST_BODY_BYTES})
        transport = httpx.ASGITransport(app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://x", timeout=10)

    async def sends(self, status: int = 200, code: str = "", **call: Any) -> Any:
        reply = await self.client.post("/chat/", **call)
        assert reply.status_code == status, reply.text
        if code:
            assert reply.json()["code"] == code
        return reply.json()

    def has_no_guests(self) -> bool:
        return not self.places._of and self.places._free._value == 2


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    async with door.client:
        yield door
    assert door.has_no_guests()


def lines(text: str) -> str:
    return "\r\n".join(text[n : n + 76] for n in range(0, len(text), 76))


@pytest.mark.parametrize("image", [GIF, JPEG, WEBP_LOSSY, LARGE], ids=["gif", "jpeg", "webp", "large"])
async def test_every_way_in_brings_the_same_image(door: Door, image: bytes) -> None:
    text, headers = base64_of(image), {"content-type": "application/json; charset=utf-8"}
    escaped = json.dumps({"image": text, "prompt": "a"}).replace("/", "\\/").replace("+", "\\u002B")
    await door.sends(json={"prompt": "a", "image": text})
    await door.sends(json={"image": f"data:image/png;base64,{text}", "prompt": "a"})
    await door.sends(json={"image": f"DATA:image/svg+xml;charset=x;Base64,{lines(text)}", "prompt": "a"})
    await door.sends(content=escaped.encode(), headers=headers)
    await door.sends(data={"prompt": "a"}, files={"image": ("x.png", image, "text/html")})
    assert {content for _, content, _ in door.seen} == {image}
    references = [body.image for body, _, _ in door.seen]
    assert all(one is not None and one.size == len(image) for one in references)
    assert len({one.sha256 for one in references if one}) == 1
    assert len({one.payload_id for one in references if one}) == len(references)
    assert len({one.media_type for one in references if one}) == 1  # by its content, whatever was said


async def test_a_form_has_all_that_json_has(door: Door) -> None:
    fields = {
        "prompt": "7", "provider": "openai", "timeout": "2.5", "stream": "true",
        "generation_config": '{"temperature": 0.5}', "instruction": "null",
    }  # fmt: skip
    await door.sends(data=fields, files={"image": ("x", GIF)})
    await door.sends(files={"prompt": (None, "without")})
    body, without = door.seen[0][0], door.seen[1][0]
    assert (body.prompt, body.provider, body.timeout, body.stream) == ("7", "openai", 2.5, True)
    assert (body.generation_config.temperature, body.instruction) == (0.5, "null")
    assert (without.prompt, without.image) == ("without", None)
    await door.sends(422, "invalid-body", data={"colour": "red", "prompt": "x"}, files={"image": ("x", GIF)})
    await door.sends(422, "invalid-body", data={"prompt": "x"}, files={"photo": ("x", GIF)})
    await door.sends(422, "invalid-body", data={"prompt": "x"}, files=[("image", ("x", GIF)), ("image", ("y", GIF))])
    told = await door.sends(
        422, "invalid-body", content=b"--x\r\nbroken", headers={"content-type": "multipart/form-data"}
    )
    assert "form" in told["detail"]


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "a\\..\\b.png", "\u202egnp.exe", "x" * 1000, "<script>alert(1)</script>.png", "\x00.png"],
)
async def test_a_files_name_is_thrown_away(door: Door, name: str) -> None:
    await door.sends(data={"prompt": "a"}, files={"image": (name, GIF)})
    body, content, _ = door.seen[0]
    assert content == GIF
    assert name not in body.model_dump_json()


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [
        ("no base64!", 400, "image-invalid"), ("!" + base64_of(GIF), 400, "image-invalid"),
        (base64_of(GIF)[:-2], 400, "image-invalid"), ("", 400, "image-invalid"),
        (base64_of(b"<svg/>"), 400, "image-invalid"), ("data:image/png," + base64_of(GIF), 400, "image-invalid"),
        ("data:image/png;base64", 400, "image-invalid"), ("\u00e9" * 8, 400, "image-invalid"),
        (base64_of(png(30_000, 30_000)), 400, "image-invalid"), ("https://example.com/x.png", 400, "image-invalid"),
        (7, 422, "invalid-body"), ([], 422, "invalid-body"), ({"payload_id": "x"}, 422, "invalid-body"),
        ({"url": "http://10.0.0.1/"}, 422, "invalid-body"),
    ],
)  # fmt: skip
async def test_what_is_no_image_is_said_so(door: Door, image: Any, status: int, code: str) -> None:
    told = await door.sends(status, code, json={"prompt": "a", "image": image})
    assert "image" in told["detail"]
    assert door.seen == []


async def test_ten_megabytes_are_taken_and_not_a_byte_more(door: Door) -> None:
    largest, larger = png(size=MAX_IMAGE_BYTES), png(size=MAX_IMAGE_BYTES + 1)
    assert (len(largest), len(larger)) == (MAX_IMAGE_BYTES, MAX_IMAGE_BYTES + 1)
    await door.sends(json={"prompt": "a", "image": base64_of(largest)})
    await door.sends(data={"prompt": "a"}, files={"image": ("x", largest)})
    await door.sends(413, "image-too-large", json={"prompt": "a", "image": base64_of(larger)})
    await door.sends(413, "image-too-large", data={"prompt": "a"}, files={"image": ("x", larger)})
    await door.sends(413, "body-too-large", json={"prompt": "a", "image": "A" * LARGEST_BODY_BYTES})
    assert [len(content or b"") for _, content, _ in door.seen] == [MAX_IMAGE_BYTES] * 2


async def test_nothing_but_the_image_may_be_large(door: Door) -> None:
    text, json_type = base64_of(LARGE), {"content-type": "application/json"}
    many = ",".join('{"a":[]}' for _ in range(200_000))  # small as text, large once it is parsed
    for content in (
        json.dumps({"prompt": "x" * (MOST + 1)}), json.dumps({"prompt": "x", "generation_config": {"image": text}}),
        '{"image": "' + text + '", "a": [' + many + "]}", json.dumps([{"image": text}]) + " " * MOST,
        json.dumps({"prompt": "a", "stop": text, "image": base64_of(GIF)}), '{"image"' + " " * MOST,
    ):  # fmt: skip
        await door.sends(413, "body-too-large", content=content.encode(), headers=json_type)
    await door.sends(422, "invalid-body", content=b'{"image": "' + text.encode() + b'", "prompt": ', headers=json_type)
    await door.sends(413, "body-too-large", content=b'{"image": "' + text.encode() + b'"}')  # says not what it is
    assert door.seen == []


async def test_a_large_body_without_a_length_is_bounded_as_well(door: Door) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"prompt": "a", "image": "'
        while True:
            yield b"A" * 100_000

    await door.sends(413, "body-too-large", content=endless(), headers={"content-type": "application/json"})


async def test_one_who_sends_slowly_gives_the_place_back(door: Door) -> None:
    door.bodies = Bodies(door.places, max_body_bytes=MOST, read_within_s=0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield b'{"prompt": "a", "image": "' + b"A" * MOST
        await asyncio.sleep(60)

    await door.sends(408, "body-too-slow", content=slow(), headers={"content-type": "application/json"})


async def test_places_are_few_and_shared(door: Door) -> None:
    own = await door.places.take("alice")
    told = await door.sends(429, "too-many-uploads", json={"prompt": "a", "image": base64_of(LARGE)})
    assert told["retry_after_s"] == 2
    other = await door.places.take("bob")
    door.user = user_updated(user_id="carol")
    await door.sends(503, "overloaded", data={"prompt": "a"}, files={"image": ("x", GIF)})
    await door.sends(json={"prompt": "a", "image": base64_of(GIF)})  # a small one needs none
    other.leave()
    other.leave()
    await door.sends(json={"prompt": "a", "image": base64_of(LARGE)})
    own.leave()


async def test_the_same_request_has_one_fingerprint_however_it_comes(door: Door) -> None:
    key = {"idempotency-key": "k"}
    await door.sends(json={"prompt": "a", "timeout": 2, "image": base64_of(LARGE)}, headers=key)
    await door.sends(json={"image": "data:;base64," + base64_of(LARGE), "timeout": 2, "prompt": "a"}, headers=key)
    await door.sends(data={"prompt": "a", "timeout": "2"}, files={"image": ("1", LARGE)}, headers=key)
    await door.sends(data={"prompt": "a", "timeout": "2"}, files={"image": ("2", LARGE)}, headers=key)
    same = {fingerprint for _, _, fingerprint in door.seen}
    assert len(same) == 1
    await door.sends(json={"prompt": "a", "timeout": 2, "image": base64_of(png(seed=b"x"))}, headers=key)
    await door.sends(json={"prompt": "a", "timeout": 2}, headers=key)
    assert len({fingerprint for _, _, fingerprint in door.seen}) == 3
    await door.sends(
        400, "idempotency-key-invalid", json={"prompt": "a"}, headers={"idempotency-key": "\u00e9".encode()}
    )


async def test_a_form_is_in_memory_once(door: Door) -> None:
    image = png(size=9_000_000)

    async def in_pieces() -> AsyncIterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="prompt"\r\n\r\na\r\n'
        yield b'--x\r\ncontent-disposition: form-data; name="image"; filename="p"\r\n\r\n'
        for begin in range(0, len(image), 65_536):
            yield image[begin : begin + 65_536]
        yield b"\r\n--x--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=x"}
    await door.sends(content=in_pieces(), headers=headers)  # what is loaded at the first call is not counted
    door.seen.clear()
    tracemalloc.start()
    await door.sends(content=in_pieces(), headers=headers)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert door.seen[0][1] == image
    assert peak < 1.5 * len(image)


async def test_once_it_is_let_go_nothing_of_an_upload_is_held() -> None:
    left: list[int] = []
    upload = uploads.upload_of(GIF)
    upload.place = uploads.Place(lambda: left.append(1))
    upload.let_go()
    upload.let_go()
    assert (upload.content, left) == (b"", [1])
    assert upload.reference.size == len(GIF)


def test_what_a_job_carries_of_an_image_is_its_reference() -> None:
    upload = uploads.upload_of(GIF)
    body = AsyncChatRequest(prompt="a", image=upload.reference)
    assert json.loads(body.model_dump_json(exclude_none=True))["image"] == {
        "payload_id": str(upload.payload_id), "media_type": "image/gif", "size": len(GIF), "sha256": upload.sha256,
    }  # fmt: skip
