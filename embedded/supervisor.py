"""Keeps the embedded parts, the ingress and the workers running, until it is told to stop."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from embedded import embeddings, kafka, model, postgres, speech, vectors
from embedded.child import Child
from embedded.errors import EmbeddedError
from embedded.home import Home, PartState, Status
from embedded.part import Part
from embedded.ports import HOST, KeptPorts, free_port, is_free
from embedded.spawn import KILLED_WITHIN_S
from settings import Settings
from transport.ports import holder

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parent.parent
EMBEDDED_PARTITIONS = 4
TICK_S, CHECK_EVERY_S, FIRST_CHECK_EVERY_S = 0.1, 3.0, 0.15
# Kafka waits for the disk some 700 times here. Once it took over two minutes, most likely since others kept that busy.
SETUP_TIMEOUT_S = 300
SETUP_LINES, NOTE_CHARACTERS = 40, 80
READY_WITHIN_S = 120.0
DRAIN_S = 40.0
# The roles of each worker: no more processes than a machine that has all of it can do with.
WORKERS = {
    "gate": ("gate",), "completion": ("completion", "speech"),
    "knowledge": ("retrieval", "agent", "ingestion", "training"), "sink": ("sink",),
}  # fmt: skip


class Supervisor:
    """One per home."""

    def __init__(self, settings: Settings, *, changed: Callable[[Status], None] = lambda _: None) -> None:
        """`changed`: told of every change, to show it."""
        self._settings, self._changed = settings, changed
        self._home = Home(settings.assistant_home)
        self._children: list[Child] = []
        self._stop = asyncio.Event()
        me = psutil.Process()
        self._status = Status(me.pid, me.create_time())
        self._shown: Any = None

    async def run(self) -> None:
        """Until SIGTERM or SIGINT.

        Raises:
            EmbeddedError: Something cannot be started, or has died five times in a minute.
        """
        self._home.make()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        with self._locked():
            try:
                await self._start_all()
                await self._watch_until(lambda: False)
            except EmbeddedError as error:
                self._status.error = str(error)
                raise
            finally:
                self._status.ready = False
                await self._stop_all()
                self._tell()

    # --- starting ---

    async def _start_all(self) -> None:
        settings = self._settings
        has_local = "local" in settings.allowed_providers
        wants_model = has_local and settings.local_base_url is None
        wants_embeddings = has_local and settings.local_embedding_url is None
        wants_voice = has_local and settings.local_speech_url is None
        speaks = wants_voice or bool(settings.local_speech_url or settings.tts_api_url or settings.qwen_tts_base_url)
        names = [
            *([] if settings.kafka_bootstrap_servers else ["kafka"]),
            *([] if settings.postgres_dsn else ["postgres"]),
            *([] if settings.qdrant_url else ["vectors"]),
            *(["model"] if wants_model else []),
            *(["embeddings"] if wants_embeddings else []),
            *(["speech"] if wants_voice else []),
            "ingress",
            *(f"worker-{name}" for name in WORKERS),
        ]
        self._status.parts = [PartState(name) for name in names]
        self._tell()
        # Taken or free is known before minutes of fetching.
        ingress_port = self._ingress_port()
        ports = KeptPorts(self._home.folder / "ports.json")
        bootstrap, dsn = settings.kafka_bootstrap_servers, settings.postgres_dsn
        found: dict[str, str] = {}
        if wants_model:
            port = ports.get("model")
            adapters = (settings.local_adapters_path or self._home.folder / "adapters").absolute()
            part, url = model.model_part(
                port=port, slots=settings.local_slots, alias=settings.local_model, adapters=adapters,
                most_adapters=settings.max_local_adapters,
            )  # fmt: skip
            self._begin(part)
            found |= {"LOCAL_BASE_URL": url, "LOCAL_ADAPTERS_PATH": str(adapters)}
        if wants_embeddings:
            port = ports.get("embeddings")
            part, url = embeddings.embeddings_part(port=port, model=settings.local_embedding_model)
            self._begin(part)
            found["LOCAL_EMBEDDING_URL"] = url
        if wants_voice:
            part, url = speech.speech_part(port=ports.get("speech"))
            self._begin(part)
            found["LOCAL_SPEECH_URL"] = url
        if settings.qdrant_url is None:
            key = self._home.secret("qdrant_api_key")
            part, url = vectors.vectors_part(self._home.folder / "vectors", port=ports.get("vectors"), api_key=key)
            self._begin(part)
            found |= {"QDRANT_URL": url, "QDRANT_API_KEY": key}
        if dsn is None:
            part, dsn = await self._prepared(
                "postgres", postgres.postgres_part, self._home.folder / "postgres", port=ports.get("postgres")
            )
            self._begin(part)
        if bootstrap is None:
            port, controller = ports.get("kafka", preferred=9092), ports.get("kafka-controller")
            part = await self._prepared(
                "kafka", kafka.kafka_part, self._home.folder / "kafka", port=port, controller_port=controller,
                report=lambda text: self._note("kafka", "fetching", text),
            )  # fmt: skip
            bootstrap = f"{HOST}:{port}"
            self._begin(part)
        self._status.kafka, self._status.postgres = bootstrap, dsn
        await self._watch_until(lambda: self._are_ready("kafka", "postgres"), within_s=READY_WITHIN_S)
        if self._stop.is_set():
            return
        environment = self._environment(bootstrap, dsn) | found
        await self._set_up(environment)
        if self._stop.is_set():
            return
        self._begin(self._our_part("ingress", ("ingress",), environment, port=ingress_port))
        for name, roles in WORKERS.items():
            wanted = ",".join(role for role in roles if role != "speech" or speaks)
            part = self._our_part(f"worker-{name}", ("worker", "--roles", wanted), environment, port=free_port())
            self._begin(part)
        self._status.ingress = f"http://{settings.ingress_host}:{ingress_port}"
        await self._watch_until(lambda: self._are_ready(*names), within_s=READY_WITHIN_S)

    def _ingress_port(self) -> int:
        port = self._settings.ingress_port or free_port()
        if not is_free(port):
            raise EmbeddedError(
                f"port {port} is held by {holder(port)}: end that, or choose another: INGRESS_PORT=8001 make up"
            )
        return port

    async def _prepared(self, name: str, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._note(name, "starting", "making ready")
        return await asyncio.to_thread(make, *args, **kwargs)

    def _environment(self, bootstrap: str, dsn: str) -> dict[str, str]:
        settings = self._settings
        jwt_key = settings.jwt_secret_key.get_secret_value() if settings.jwt_secret_key else None
        return {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "DATABASE_URL": dsn,
            "JWT_SECRET_KEY": jwt_key or self._home.secret("jwt_secret_key"),
            "ASSISTANT_HOME": str(self._home.folder),
        }

    async def _set_up(self, environment: dict[str, str]) -> None:
        """Schema, topics, first admin; meanwhile the parts are watched, and whoever wants to stop may."""
        self._note("ingress", "starting", "setting up database and topics")
        setting_up = asyncio.create_task(self._run_setup(environment), name="setup")
        try:
            await self._watch_until(setting_up.done)
        finally:
            setting_up.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await setting_up

    async def _run_setup(self, environment: dict[str, str]) -> None:
        password = self._settings.root_usr_pass
        secret = password.get_secret_value() if password else self._home.secret("root_usr_pass")
        command = [sys.executable, "-m", "cli", "setup"]
        if self._settings.kafka_bootstrap_servers is None:
            command += ["--partitions", str(EMBEDDED_PARTITIONS)]
        said: deque[str] = deque(maxlen=SETUP_LINES)
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env={**environment, "ROOT_USR_PASS": secret}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(SETUP_TIMEOUT_S):
                while line := (await process.stdout.readline() if process.stdout else b""):
                    said.append(line.decode(errors="replace").rstrip())
                    self._note("ingress", "starting", f"setting up: {said[-1][:NOTE_CHARACTERS]}")
                await process.wait()
        except TimeoutError:
            raise EmbeddedError(
                f"database and topics were not set up within {SETUP_TIMEOUT_S} s, as on a machine or a disk that is "
                f"too busy (last said: {said[-1] if said else 'nothing'}): run `assistant up` again, which goes on "
                "from there"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                async with asyncio.timeout(KILLED_WITHIN_S):
                    await process.wait()
        if process.returncode:
            told = "\n".join(said).strip()
            raise EmbeddedError(f"database and topics could not be set up: {told}")

    def _our_part(self, name: str, words: tuple[str, ...], environment: dict[str, str], *, port: int) -> Part:
        address = f"http://{HOST}:{port}"
        own = {**environment, "INGRESS_PORT": str(port), "WORKER_HTTP_PORT": str(port)}
        if name != "ingress":
            own["WORKER_ID"] = name  # comes back under its name after a kill: nobody waits out its session
        own.pop("ROOT_USR_PASS", None)
        return Part(
            name, [sys.executable, "-m", "cli", *words], lambda: model.answers_http(f"{address}/readyz"), env=own,
            cwd=ROOT, http=address, stop_timeout_s=DRAIN_S,
        )  # fmt: skip

    def _begin(self, part: Part) -> None:
        child = Child(part, self._home.logs / f"{part.name}.log")
        for place, state in enumerate(self._status.parts):
            if state.name == part.name:
                self._status.parts[place] = child.state
        child.start()
        self._children.append(child)
        self._tell()

    # --- watching ---

    async def _watch_until(self, reached: Callable[[], bool], *, within_s: float | None = None) -> None:
        began = time.monotonic()
        checked_at = 0.0
        while not self._stop.is_set() and not reached():
            for child in self._children:
                if not child.watch():
                    raise EmbeddedError(
                        f"{child.part.name} has died five times in a minute; the end of {child.log}:\n{child.tail()}"
                    )
            every = CHECK_EVERY_S if self._status.ready else FIRST_CHECK_EVERY_S
            if time.monotonic() - checked_at > every:
                await asyncio.gather(*(child.check() for child in self._children))
                checked_at = time.monotonic()
                for child in self._children:
                    child.bound_log()
            self._status.ready = all(state.state == "ready" for state in self._status.parts)
            self._tell()
            if within_s is not None and time.monotonic() - began > within_s:
                late = [child for child in self._children if child.state.state != "ready"]
                tails = "\n".join(f"--- {child.log}\n{child.tail()}" for child in late)
                raise EmbeddedError(
                    f"not ready after {within_s:.0f} s: {', '.join(c.part.name for c in late)}\n{tails}"
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), TICK_S)

    def _are_ready(self, *names: str) -> bool:
        return all(state.state == "ready" for state in self._status.parts if state.name in names)

    def _note(self, name: str, state: str, note: str) -> None:
        for part in self._status.parts:
            if part.name == name:
                part.state, part.note = state, note
        self._tell()

    def _tell(self) -> None:
        shown = repr(self._status)
        if shown != self._shown:
            self._shown = shown
            self._home.write_status(self._status)
            self._changed(self._status)

    # --- stopping ---

    async def _stop_all(self) -> None:
        """Those who work first, drained; then what they stand on."""
        ours = [child for child in self._children if child.part.name.startswith(("worker", "ingress"))]
        for together in (ours, [child for child in self._children if child not in ours]):
            stopped = asyncio.gather(*(child.stop() for child in together))
            await asyncio.sleep(0)  # each has been asked by then
            self._tell()
            await stopped

    @contextlib.contextmanager
    def _locked(self) -> Any:
        with self._home.lock_file.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise EmbeddedError(f"it runs already in {self._home.folder}: see `assistant status`") from None
            yield
