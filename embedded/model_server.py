"""The llama.cpp server in a process of its own: `python -m embedded.model_server --port N --slots N --model FILE`."""

import argparse
import os
import signal
import threading


def main() -> None:
    """Serve until SIGTERM; OpenAI's API at /v1, /health beside it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    given = parser.parse_args()

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.model_alias = {given.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = given.port
    params.n_parallel = given.slots
    params.n_ctx = 2048 * given.slots
    params.cont_batching = True
    params.cpuparams.n_threads = os.cpu_count() or 2
    params.n_predict = 1024  # the model's own end; a caller who is gone ends it sooner
    params.warmup = False
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_Q8_0  # 45 MB less for 4 slots, and no slower
    params.ui = False
    params.cache_ram_mib = 0
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)  # noqa: T201 this process's log
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(1):
        pass
    os._exit(0)  # the server's threads are its own


if __name__ == "__main__":
    main()
