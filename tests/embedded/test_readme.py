"""What the README shows is run as it stands there; only the addresses are those of this test's own deployment."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.embedded.newcomer import ROOT, Newcomer

pytestmark = pytest.mark.integration
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    (language, text) for language, text in BLOCK.findall((ROOT / "README.md").read_text()) if language != "mermaid"
]


class Reader:
    """Somebody who pastes what the README shows, in a folder like the checkout."""

    def __init__(self, newcomer: Newcomer, folder: Path) -> None:
        self.environment, self.folder = newcomer.environment, folder
        (folder / ".venv").symlink_to(ROOT / ".venv")
        (folder / ".assistant").symlink_to(newcomer.home)
        self.addresses: dict[str, str] = {}

    def block(self, *marks: str) -> str:
        """The one block that holds all of the marks, with this deployment's addresses."""
        text: str
        (text,) = [text for _, text in BLOCKS if all(mark in text for mark in marks)]
        for shown, real in self.addresses.items():
            text = text.replace(shown, real)
        return text

    def pastes(self, *blocks: str) -> str:
        return self._runs(["bash", "-euo", "pipefail", "-c", "\n".join(blocks)])

    def runs_python(self, block: str, **more: str) -> str:
        return self._runs([str(self.folder / ".venv/bin/python"), "-c", block], **more)

    def _runs(self, command: list[str], **more: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def reader(newcomer: Newcomer, tmp_path: Path) -> Reader:
    return Reader(newcomer, tmp_path)


@contextmanager
def receiver() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A webhook endpoint: its URL, and what came."""
    calls: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", calls
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_block_is_one_that_is_run_here() -> None:
    marks = [
        "make up", "assistant chat", "TOKEN=", "curl -s $BASE/chat/ ", '"stream": true', "$BASE/chat/async", "image=@",
        "openai.OpenAI(base_url", "producer.produce", "ingestion/ingest", 'consumer.subscribe(["job-finished"])',
        "Webhook(", "assistant setup",
    ]  # fmt: skip
    assert len(BLOCKS) == len(marks)
    for mark, (_, text) in zip(marks, BLOCKS, strict=True):
        assert mark in text


def test_the_commands_that_are_shown_are_there(reader: Reader) -> None:
    for line in reader.block("assistant setup").splitlines():
        if line.startswith("assistant "):
            command, *options = line.partition("#")[0].split()[1:]
            told = reader.pastes(f".venv/bin/assistant {command} --help")
            assert all(option in told for option in options if option.startswith("--"))
    for target in re.findall(r"^make (\S+)", reader.block("make up"), re.MULTILINE):
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


def test_the_readme_says_what_works(newcomer: Newcomer, reader: Reader) -> None:
    newcomer.types("up", "--detach")  # as `make up` does
    status = newcomer.status()
    reader.addresses = {"http://127.0.0.1:8000": status["ingress"], "127.0.0.1:9092": status["kafka"]}

    assert reader.pastes(reader.block("assistant chat")).strip()
    login = reader.block("TOKEN=")
    answer = json.loads(reader.pastes(login, reader.block("curl -s $BASE/chat/ ")))
    assert answer["result"]["text"]
    assert answer["usage"]["completion_tokens"] <= 60
    streamed = reader.pastes(login, reader.block('"stream": true'))
    assert "event: delta" in streamed
    assert "event: finished" in streamed
    blind = json.loads(reader.pastes(login, reader.block("image=@")))
    assert (blind["status"], blind["code"]) == (400, "images-unsupported")
    polled = reader.pastes(login, reader.block("$BASE/chat/async"))
    assert "202" in polled.splitlines()[0]
    job_id = polled.partition('{"job_id":"')[2][:36]
    assert f"ocation: /jobs/{job_id}" in polled
    assert '"items":[' in polled

    replies = reader.pastes(login, reader.block("ingestion/ingest"))
    kept, end = json.JSONDecoder().raw_decode(replies)
    assert kept["status"] == "ok"
    assert json.loads(replies[end:])["results"][0]["source"] == "warranty.txt"

    told = reader.runs_python(reader.block("producer.produce"))
    direct = told.removeprefix("job ").strip()
    token = reader.pastes(login, "printf %s $TOKEN")
    assert reader.runs_python(reader.block("openai.OpenAI(base_url"), TOKEN=token).strip()
    with httpx.Client(base_url=status["ingress"], headers={"authorization": f"Bearer {token}"}) as client:
        for one in (job_id, direct):
            _until_completed(client, one)
        finished = reader.runs_python(reader.block("job-finished", "consumer"))
        for one in (job_id, direct):
            assert f"{one} completed" in finished

        secret = client.get("/webhook-secret").json()["secret"]
        with receiver() as (url, calls):
            asked = {"prompt": "Name a colour.", "generation_config": {"max_tokens": 16}, "callback_url": url}
            reply = client.post("/chat/async", json=asked).raise_for_status()
            _until_completed(client, reply.json()["job_id"])
            deadline = time.monotonic() + 60
            while not calls:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        headers, body = calls[0]
        names: dict[str, Any] = {"headers": headers, "body": body}
        exec(reader.block("Webhook(").replace("whsec_...", secret), names)
        assert names["payload"]["type"] == "job.completed"
        page = client.get("/docs")
        assert page.status_code == 200


def _until_completed(client: httpx.Client, job_id: str) -> None:
    # One answer in twenty of so small a model goes on to its 1,024 tokens: a minute, where others want the processors.
    deadline = time.monotonic() + 240
    while True:
        reply = client.get(f"/jobs/{job_id}")
        if reply.status_code == 200 and reply.json()["status"] == "completed":
            return
        assert time.monotonic() < deadline, reply.text
        time.sleep(0.05)
