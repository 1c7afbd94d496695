"""The llama.cpp server in a process of its own: `python -m embedded.model_server --port N --slots N --model FILE`.

With `--adapters FOLDER` it serves the LoRA adapters there (`NAME.gguf`), each for the requests that name it. llama.cpp
loads them at its start only: where the folder has changed, this program begins anew as soon as it has nothing to do.
"""

import argparse
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import socket
from typing import Any

from embedded.adapters import neutral_adapter, newest, placed
from embedded.handover import begin_anew, hold, let_in, taken_over

HOST = "127.0.0.1"
LOOK_EVERY_S = 1.0
WAIT_EVERY_S = 0.05  # for a moment in which nobody is being answered
# llama.cpp's threads wait for each other some hundred times a token, and turn meanwhile, by libgomp's own count 300,000
# times: on cores that others want, too, they keep the one that they wait for from working. Two threads on two cores
# beside three other programs took 14 s in place of 216 (3.5 s of CPU in place of 103); on quiet cores both are alike.
SPINS = "GOMP_SPINCOUNT"
SPIN_COUNT = 2_000
IDLE_WITHIN_S = 60.0  # then it begins anew under requests, too: their jobs ask again
Anew = Callable[[socket, dict[str, Any]], None]  # does not return, but in tests


class ModelServer:
    """llama.cpp's server with the adapters that are there.

    It is never let go of while this program lives: a server that is taken down while a call comes in may wait for that
    call for ever. So other adapters are the next program's, which has this one's process and port.
    """

    def __init__(
        self, given: argparse.Namespace, waiting: socket | None = None, told: dict[str, Any] | None = None,
        *, anew: Anew = begin_anew,
    ) -> None:  # fmt: skip
        """`waiting`, `told`: what the program before has handed over."""
        self._given, self._waiting, self._anew = given, waiting, anew
        self._folder: Path | None = given.adapters
        told = told or {"places": [], "broken": {}}
        self._places = tuple(Path(place) if place else None for place in told["places"])
        # Adapters that it does not load, and of when they are.
        self._broken: dict[Path, int] = {Path(path): age for path, age in told["broken"].items()}
        self._loaded: dict[Path, int] = {}  # and of when they are
        self._changed_at = 0.0
        self._server: Any = None

    def start(self) -> None:
        """Load the model with the adapters that are there and can be loaded, and serve."""
        os.environ.setdefault(SPINS, str(SPIN_COUNT))  # read once, as llama.cpp is loaded
        import xllamacpp

        loaded = {path: _age(path) for path in self._wanted()}
        places = placed(self._places, tuple(loaded))
        try:
            params = self._params(places)
        except OSError as error:  # the one that changes nothing cannot be written: better none than no model
            self._broken |= loaded
            loaded, places = {}, placed(self._places, ())
            params = self._params(places)
            print(f"no adapters: {error.strerror}", flush=True)  # noqa: T201 this process's log
        try:
            self._server = xllamacpp.Server(params)
        except RuntimeError:
            if not loaded:
                raise
            suspect = max(loaded, key=loaded.__getitem__)  # what has come last
            self._broken[suspect] = loaded[suspect]
            print(f"left out: {suspect.name} cannot be loaded", flush=True)  # noqa: T201 as above
            self._begin_anew()
            return
        self._places, self._loaded = places, loaded
        print(f"listening on {self._server.listening_address}", flush=True)  # noqa: T201 as above
        if self._waiting is not None:
            let_in(self._waiting, HOST, self._given.port)
            self._waiting = None

    def look(self) -> bool:
        """Begin anew, if there are other adapters and nobody is being answered; True where somebody is waited for."""
        wanted = self._wanted()
        if {path: _age(path) for path in wanted} == self._loaded:
            self._changed_at = 0.0
            return False
        self._changed_at = self._changed_at or time.monotonic()
        if self._is_idle() or time.monotonic() - self._changed_at > IDLE_WITHIN_S:
            self._begin_anew()
        return True

    def _begin_anew(self) -> None:
        told = {
            "places": [str(place) if place else None for place in self._places],
            "broken": {str(path): age for path, age in self._broken.items()},
        }
        self._anew(self._waiting or hold(HOST, self._given.port), told)

    def _wanted(self) -> tuple[Path, ...]:
        if self._folder is None:
            return ()
        found = newest(self._folder, self._given.most_adapters + len(self._broken))
        whole = [path for path in found if self._broken.get(path) != _age(path)]
        return tuple(whole[: self._given.most_adapters])

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
        # 45 MB less for 4 slots each, and no slower; the second needs flash attention.
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_Q8_0
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.n_ubatch = 128  # 12 MB less in use, and no slower
        params.ui = False
        params.cache_ram_mib = 0
        if self._folder is not None:
            params.reuse_port = True  # as `hold` needs it
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
    waiting, told = taken_over()
    # At once, whatever it does and whichever of its programs it is: the server's threads are its own.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--adapters", type=Path)
    parser.add_argument("--most-adapters", type=int, default=16)
    server = ModelServer(parser.parse_args(), waiting, told)
    server.start()
    while True:
        time.sleep(WAIT_EVERY_S if server.look() else LOOK_EVERY_S)


if __name__ == "__main__":
    main()
