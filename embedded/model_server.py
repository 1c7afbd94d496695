"""The llama.cpp server in a process of its own: `python -m embedded.model_server --port N --slots N --model FILE`.

With `--adapters FOLDER` it serves the LoRA adapters there (`NAME.gguf`), each for the requests that name it. llama.cpp
loads them at its start only: where the folder has changed, it is made anew as soon as it has nothing to do.
"""

import argparse
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedded.adapters import neutral_adapter, newest, placed

HOST = "127.0.0.1"
LOOK_EVERY_S = 1.0
GONE_WITHIN_S = 10
IDLE_WITHIN_S = 60.0  # then it is made anew under requests, too: their jobs ask again


class ModelServer:
    """llama.cpp's server with the adapters that are there."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._folder: Path | None = given.adapters
        self._places: tuple[Path | None, ...] = ()
        self._loaded: dict[Path, int] = {}  # and of when they are
        self._broken: dict[Path, int] = {}  # adapters that it does not load, and of when they are
        self._changed_at = 0.0
        self._server: Any = None

    def start(self) -> None:
        """Load the model, and serve."""
        self._load(self._wanted())
        print(f"listening on {self._server.listening_address}", flush=True)  # noqa: T201 this process's log

    def look(self) -> None:
        """Serve other adapters, if there are others and nobody is being answered."""
        wanted = self._wanted()
        if {path: _age(path) for path in wanted} == self._loaded:
            self._changed_at = 0.0
            return
        self._changed_at = self._changed_at or time.monotonic()
        if self._is_idle() or time.monotonic() - self._changed_at > IDLE_WITHIN_S:
            from embedded.handover import held

            with held(HOST, self._given.port):
                # llama.cpp may wait for ever for a call that came as it was going: then this process ends by the
                # kernel's hand, for nothing of Python runs meanwhile, and the supervisor starts it again.
                signal.alarm(GONE_WITHIN_S)
                self._server = None  # it is gone before the next one takes its memory
                signal.alarm(0)
                self._load(wanted)
            self._changed_at = 0.0

    def _wanted(self) -> tuple[Path, ...]:
        if self._folder is None:
            return ()
        found = newest(self._folder, self._given.most_adapters + len(self._broken))
        whole = [path for path in found if self._broken.get(path) != _age(path)]
        return tuple(whole[: self._given.most_adapters])

    def _load(self, wanted: Sequence[Path]) -> None:
        """With these adapters, or with those of them that can be loaded."""
        import xllamacpp

        left = list(wanted)
        while True:
            loaded, places = {path: _age(path) for path in left}, placed(self._places, left)
            try:
                self._server = xllamacpp.Server(self._params(places))
            except OSError as error:  # the one that changes nothing cannot be written: better none than no model
                self._broken |= loaded
                left = []
                print(f"no adapters: {error.strerror}", flush=True)  # noqa: T201 as above
            except RuntimeError:
                if not left:
                    raise
                suspect = max(left, key=_age)  # what has come last
                left.remove(suspect)
                self._broken[suspect] = _age(suspect)
                print(f"left out: {suspect.name} cannot be loaded", flush=True)  # noqa: T201 as above
            else:
                self._places, self._loaded = places, loaded
                return

    def _params(self, places: Sequence[Path | None]) -> Any:
        import xllamacpp

        given = self._given
        params = xllamacpp.CommonParams()
        params.model.path = given.model
        params.model_alias = {given.alias}
        params.hostnames = [HOST]
        params.port = given.port
        params.n_parallel = given.slots
        params.n_ctx = 2048 * given.slots
        params.cont_batching = True
        params.cpuparams.n_threads = given.threads
        params.n_predict = 1024  # the model's own end; a caller who is gone ends it sooner
        params.warmup = False
        params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_Q8_0  # 45 MB less for 4 slots, and no slower
        params.ui = False
        params.cache_ram_mib = 0
        if self._folder is not None:
            params.reuse_port = True  # as `held` needs it
            if any(places):
                neutral = neutral_adapter(self._folder)
                adapters = [neutral, *(place or neutral for place in places)]
                params.lora_adapters = [_adapter(path, on=at == 0) for at, path in enumerate(adapters)]
        return params

    def _is_idle(self) -> bool:
        import http.client
        import json

        connection = http.client.HTTPConnection(HOST, self._given.port, timeout=2)
        try:
            connection.request("GET", "/slots")
            return not any(slot["is_processing"] for slot in json.loads(connection.getresponse().read()))
        except (OSError, ValueError, KeyError, TypeError):
            return False
        finally:
            connection.close()


def _adapter(path: Path, *, on: bool) -> Any:
    import xllamacpp

    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = str(path), float(on)
    return adapter


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def main() -> None:
    """Serve until SIGTERM; OpenAI's API at /v1, /health beside it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--adapters", type=Path)
    parser.add_argument("--most-adapters", type=int, default=16)
    server = ModelServer(parser.parse_args())
    server.start()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(LOOK_EVERY_S):
        server.look()
    os._exit(0)  # the server's threads are its own


if __name__ == "__main__":
    main()
