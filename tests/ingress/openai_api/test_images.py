"""The image of a conversation in OpenAI's API: where it may stand, and how large the body may be for it."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from ingress.http.bodies import LARGEST_BODY_BYTES, Bodies
from ingress.http.middleware import Edge
from ingress.http.problems import install
from ingress.http.uploads import Places
from ingress.openai_api.bodies import ChatCompletionBody
from ingress.openai_api.images import IMAGE_PART
from ingress.openai_api.model_names import Model
from schemas.requests import MAX_IMAGE_BYTES, ChatRequest
from tests.factories import user_updated
from tests.pictures import GIF, base64_of, png

PATH = "/v1/chat/completions"
MOST = 1_000_000
LARGE = png(100, 100, size=3_000_000)
TEXT = {"type": "text", "text": "What is on it?"}
USER = {"role": "user", "content": "Hello."}
ASSISTANT = {"role": "assistant", "content": "Hello!"}


def url_of(content: bytes, media_type: str = "image/gif") -> str:
    return f"data:{media_type};base64,{base64_of(content)}"


def picture(url: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url_of(GIF) if url is None else url, **more}}


def asking(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*parts]}


class Door:
    """The route, up to the job's request. `seen`: each request, its image's bytes, and its fingerprint."""

    def __init__(self) -> None:
        self.places = Places(most=1, per_user=1, wait_s=0.05)
        bodies = Bodies(self.places, max_body_bytes=MOST)
        self.seen: list[tuple[ChatRequest, bytes | None, bytes | None]] = []
        app = FastAPI()
        install(app)

        @app.post(PATH, max_body_size=LARGEST_BODY_BYTES)
        async def complete(request: Request) -> None:
            key = request.headers.get("idempotency-key")
            with await bodies.read(ChatCompletionBody, request, user_updated(), key, image=IMAGE_PART) as sent:
                content = sent.upload.content if sent.upload else None
                asked = sent.body.request(Model("openai", "m-1"))
                assert asked.image == (sent.upload.reference if sent.upload else None)
                self.seen.append((asked, content, sent.key.fingerprint if sent.key else None))

        app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MOST)
        app.add_middleware(Edge, max_body_bytes=MOST, larger={PATH: LARGEST_BODY_BYTES})
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", timeout=10)

    async def asks(self, *messages: Any, **more: Any) -> httpx.Response:
        return await self.sends(json.dumps({"model": "m-1", "messages": messages, **more}).encode())

    async def sends(self, content: bytes, content_type: str = "application/json", **headers: str) -> httpx.Response:
        return await self.client.post(PATH, content=content, headers={"content-type": content_type, **headers})

    async def refuses(self, param: str | None, code: str, *messages: Any, status: int = 400) -> str:
        """The request; what is said of it."""
        before = len(self.seen)
        reply = await self.asks(*messages)
        body = reply.json()
        assert (reply.status_code, body["code"], body["error"]["param"]) == (status, code, param), reply.text
        assert len(self.seen) == before
        return str(body["error"]["message"])


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    yield door
    await door.client.aclose()
    assert not door.places._of


@pytest.mark.parametrize("image", [GIF, LARGE])
async def test_an_image_of_the_last_user_turn_is_an_upload_however_large_it_is(door: Door, image: bytes) -> None:
    url = url_of(image)
    for messages in (
        [asking(TEXT, picture(url))], [asking(picture(url, detail="auto"), TEXT)],
        [USER, ASSISTANT, asking(picture(url)), {"role": "user", "content": "What is on it?"}],
        [USER, ASSISTANT, asking(TEXT, picture(url, detail=None)), {"role": "system", "content": "Be brief."}],
    ):  # fmt: skip
        assert (await door.asks(*messages)).status_code == 200
    escaped = json.dumps({"model": "m", "messages": [asking(TEXT, picture(url))]}).replace("/", "\\/")
    assert (await door.sends(escaped.encode())).status_code == 200
    assert [(asked.prompt, content) for asked, content, _ in door.seen] == [("What is on it?", image)] * 5
    assert [len(asked.history or ()) for asked, *_ in door.seen] == [0, 0, 2, 2, 0]
    assert not any(base64_of(image)[:40] in asked.model_dump_json() for asked, *_ in door.seen)


async def test_a_conversation_without_one_has_none(door: Door) -> None:
    assert (await door.asks(USER)).status_code == 200
    assert [(asked.image, content) for asked, content, _ in door.seen] == [(None, None)]


@pytest.mark.parametrize("url", ["https://example.com/x.png", "HTTP://169.254.169.254/latest/meta-data"])
async def test_an_address_is_not_fetched(door: Door, url: str) -> None:
    told = await door.refuses("messages[0].content[1]", "image-invalid", asking(TEXT, picture(url)))
    assert "not fetched" in told
    assert "data:image/png;base64" in told


async def test_more_than_one_and_one_of_an_earlier_turn_are_refused_by_their_place(door: Door) -> None:
    code = "images-unsupported"
    await door.refuses("messages[0].content[2]", code, asking(TEXT, picture(), picture()))
    await door.refuses("messages[2].content[0]", code, asking(TEXT, picture()), ASSISTANT, asking(picture(), TEXT))
    await door.refuses("messages[0].content[1]", code, asking(TEXT, picture()), ASSISTANT, USER)
    await door.refuses("messages[0].content[0]", code, {"role": "system", "content": [picture()]}, USER)
    await door.refuses("messages[1].content[0]", code, USER, {"role": "assistant", "content": [picture()]}, USER)


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        (picture("data:image/png,x"), "", "image-invalid"), (picture("file:///etc/passwd"), "", "image-invalid"),
        (picture(url_of(b"<svg/>")), "", "image-invalid"), (picture(url_of(png(30_000, 30_000))), "", "image-invalid"),
        (picture(7), "", "invalid-body"), (picture({"payload_id": "x"}), "", "invalid-body"),
        ({"type": "image_url", "image_url": url_of(GIF)}, "", "invalid-body"),
        ({"type": "image_url"}, "", "invalid-body"),
        (picture(detail="high"), ".image_url.detail", "unsupported-parameter"),
    ],
)  # fmt: skip
async def test_what_is_no_image_is_said_by_its_place(door: Door, part: Any, param: str, code: str) -> None:
    await door.refuses(f"messages[1].content[1]{param}", code, {"role": "system", "content": "x"}, asking(TEXT, part))


async def test_an_image_alone_asks_nothing(door: Door) -> None:
    await door.refuses("messages[0].content", "invalid-body", asking(picture()))


async def test_nothing_but_the_image_may_be_large(door: Door) -> None:
    text = base64_of(LARGE)
    image = picture("data:image/png;base64," + text)
    for body in (
        {"messages": [{"role": "user", "content": text}]}, {"messages": [asking(TEXT)], "x": {"url": text}},
        {"messages": [asking({"type": "text", "text": text}, picture())]}, {"messages": [asking(image, image)]},
        {"messages": [USER], "image": text}, {"messages": [asking(TEXT, picture())], "x": {"url": text}},
    ):  # fmt: skip
        reply = await door.sends(json.dumps({"model": "m", **body}).encode())
        assert (reply.status_code, reply.json()["code"]) == (413, "body-too-large")
    larger = picture(url_of(png(size=MAX_IMAGE_BYTES + 1)))
    await door.refuses("messages[0].content[1]", "image-too-large", asking(TEXT, larger), status=413)
    form = await door.sends(b"--x--", "multipart/form-data; boundary=x")
    assert (form.status_code, form.json()["code"]) == (400, "invalid-body")
    assert "multipart" not in form.json()["detail"]
    assert door.seen == []


async def test_the_same_image_is_the_same_request(door: Door) -> None:
    other = asking(TEXT, picture(url_of(png())))
    for messages in ([asking(TEXT, picture())], [asking(TEXT, picture())], [other], [asking(TEXT)]):
        content = json.dumps({"model": "m", "messages": messages}).encode()
        assert (await door.sends(content, **{"idempotency-key": "k"})).status_code == 200
    one, same, another, without = (fingerprint for *_, fingerprint in door.seen)
    assert one == same
    assert len({one, another, without}) == 3
