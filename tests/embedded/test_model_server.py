"""When the model's server begins anew, with a llama.cpp that loads nothing."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embedded import model_server
from embedded.model_server import SPIN_COUNT, SPINS, ModelServer


class FakeLlama:
    """xllamacpp as far as it is used; `loads`: of each server, the files and scales of its adapters."""

    def __init__(self) -> None:
        self.loads: list[list[tuple[str, float]]] = []
        self.ggml_type = SimpleNamespace(GGML_TYPE_Q8_0=8)
        self.llama_flash_attn_type = SimpleNamespace(LLAMA_FLASH_ATTN_TYPE_ENABLED=1)

    def CommonParams(self) -> Any:  # noqa: N802 its name
        return SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace(), lora_adapters=[])

    def CommonAdapterLoraInfo(self) -> Any:  # noqa: N802 as above
        return SimpleNamespace()

    def Server(self, params: Any) -> Any:  # noqa: N802 as above
        adapters = [(Path(one.path).name, one.scale) for one in params.lora_adapters]
        if any("broken" in name for name, _ in adapters):
            raise RuntimeError("Failed to init server")
        self.loads.append(adapters)
        return SimpleNamespace(listening_address="here")


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> FakeLlama:
    llama = FakeLlama()
    monkeypatch.setitem(sys.modules, "xllamacpp", llama)
    monkeypatch.setattr(model_server, "hold", lambda host, port: None)
    monkeypatch.setattr(ModelServer, "_is_idle", lambda self: True)
    return llama


class Programs:
    """One after another in a process, each with what the one before has told as JSON has it."""

    def __init__(self, folder: Path | None) -> None:
        self._given = argparse.Namespace(port=1, slots=1, model="m", alias="a", threads=1, adapters=folder,
                                         most_adapters=2)  # fmt: skip
        self._next(None, None)

    def look(self) -> bool:
        return self._server.look()

    def _next(self, waiting: Any, told: dict[str, Any] | None) -> None:
        handed = json.loads(json.dumps(told))
        self._server = ModelServer(self._given, waiting, handed, anew=self._next)
        self._server.start()  # which may begin anew itself


def started(folder: Path | None) -> Programs:
    return Programs(folder)


def put(folder: Path, name: str, at: int) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"GGUF")
    os.utime(folder / name, ns=(at, at))


def test_without_adapters_there_is_nothing_and_nothing_is_written(llama: FakeLlama, tmp_path: Path) -> None:
    for folder in (None, tmp_path / "none"):
        server = started(folder)
        server.look()
        assert llama.loads.pop() == []
        assert not llama.loads
    assert not os.listdir(tmp_path)


def test_it_begins_anew_for_what_has_changed_and_only_then(llama: FakeLlama, tmp_path: Path) -> None:
    server = started(tmp_path)
    put(tmp_path, "a.gguf", 1)
    server.look()
    server.look()
    assert llama.loads == [[], [(".neutral.gguf", 1.0), ("a.gguf", 0.0)]]
    put(tmp_path, "a.gguf", 2)  # trained again under its name
    server.look()
    server.look()
    assert llama.loads[2:] == [[(".neutral.gguf", 1.0), ("a.gguf", 0.0)]]
    (tmp_path / "a.gguf").unlink()
    server.look()
    assert llama.loads[3:] == [[]]


def test_one_that_cannot_be_loaded_is_left_out_until_it_is_another(llama: FakeLlama, tmp_path: Path) -> None:
    put(tmp_path, "a.gguf", 1)
    server = started(tmp_path)
    put(tmp_path, "broken.gguf", 2)
    server.look()
    server.look()
    assert llama.loads == [[(".neutral.gguf", 1.0), ("a.gguf", 0.0)]] * 2
    put(tmp_path, "b.gguf", 0)  # a broken one takes nobody's place
    server.look()
    assert llama.loads[2] == [(".neutral.gguf", 1.0), ("a.gguf", 0.0), ("b.gguf", 0.0)]


def test_an_adapter_keeps_its_place_from_program_to_program(llama: FakeLlama, tmp_path: Path) -> None:
    put(tmp_path, "a.gguf", 1)
    put(tmp_path, "b.gguf", 2)
    server = started(tmp_path)
    (tmp_path / "a.gguf").unlink()
    put(tmp_path, "c.gguf", 3)
    server.look()
    assert [name for name, _ in llama.loads[1]] == [".neutral.gguf", ".neutral.gguf", "b.gguf", "c.gguf"]


def test_a_folder_that_cannot_be_written_is_no_reason_not_to_serve(
    llama: FakeLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(folder: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(model_server, "neutral_adapter", refused)
    put(tmp_path, "a.gguf", 1)
    started(tmp_path).look()
    assert llama.loads == [[]]


@pytest.mark.parametrize(("given", "spins"), [(None, str(SPIN_COUNT)), ("7", "7")])
def test_its_threads_leave_the_cores_to_others_while_they_wait(
    llama: FakeLlama, given: str | None, spins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SPINS, given or "")
    if given is None:
        monkeypatch.delenv(SPINS)
    Programs(None)
    assert os.environ[SPINS] == spins


def test_a_model_that_cannot_be_loaded_is_an_error(llama: FakeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(params: Any) -> Any:
        raise RuntimeError("no model")

    monkeypatch.setattr(llama, "Server", fail)
    with pytest.raises(RuntimeError):
        started(None)


def test_who_is_being_answered_is_waited_for_but_not_without_end(
    llama: FakeLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ModelServer, "_is_idle", lambda self: False)
    server = started(tmp_path)
    assert not server.look()
    put(tmp_path, "a.gguf", 1)
    assert server.look()  # soon again: a moment without anybody is short
    now[0] += model_server.IDLE_WITHIN_S
    server.look()
    assert len(llama.loads) == 1
    now[0] += 1
    server.look()
    assert len(llama.loads) == 2
