"""What is left of adapters is deleted by a worker that has it, and stays known until then."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from providers.local_training import LocalTrainer
from streams import training


class Forgotten:
    """What `AdapterStore` says of it, in a dict."""

    def __init__(self, *providers: str) -> None:
        self.left = {uuid4(): provider for provider in providers}
        self.asked = 0

    async def forgotten(self, providers: Sequence[str], *, limit: int) -> list[tuple[UUID, str]]:
        self.asked += 1
        return [one for one in self.left.items() if one[1] in providers][:limit]

    async def is_gone(self, adapter_id: UUID) -> None:
        del self.left[adapter_id]


class Gone:
    async def forget(self, adapter_id: str) -> None:
        """Of a server that has nothing to delete."""


def local(folder: Path | None) -> LocalTrainer:
    return LocalTrainer(folder=folder, python=Path("/nowhere"), model=lambda: Path("/nowhere"))


async def swept(store: Forgotten, trainers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "FORGET_EVERY_S", 0)
    task = asyncio.create_task(training.forget_adapters(store, trainers))  # type: ignore[arg-type]  # as far as it is asked
    enough = store.asked + 3 * len(trainers)
    while store.asked < enough:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def test_a_worker_without_the_folder_leaves_them_to_one_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Forgotten("local", "local", "qwen3vl")
    await swept(store, {"local": local(None), "qwen3vl": Gone()}, monkeypatch)
    assert list(store.left.values()) == ["local", "local"]
    for adapter_id in store.left:
        (tmp_path / f"{adapter_id}.gguf").write_bytes(b"GGUF")
    await swept(store, {"local": local(tmp_path)}, monkeypatch)
    assert not store.left
    assert not os.listdir(tmp_path)


async def test_one_that_cannot_be_deleted_is_in_no_others_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Forgotten("local", "local")
    stuck = next(iter(store.left))
    (tmp_path / f"{stuck}.gguf").mkdir()
    await swept(store, {"local": local(tmp_path)}, monkeypatch)
    assert list(store.left) == [stuck]
