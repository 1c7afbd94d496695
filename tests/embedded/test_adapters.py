"""Where adapters stand in the server's list."""

import os
from pathlib import Path

import pytest

from embedded.adapters import neutral_adapter, newest, placed
from tests.adapter_files import read_gguf

A, B, C = Path("a.gguf"), Path("b.gguf"), Path("c.gguf")


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        ((), (), ()),
        ((), (A, B), (A, B)),
        ((A, B), (B,), (None, B)),  # B stays where it is
        ((A,), (B,), (None, B)),  # a place that has just become free is nobody's
        ((None, B), (B, C), (C, B)),  # and the next time somebody's
        ((None, None), (A, B, C), (A, B, C)),
    ],
)
def test_an_adapter_keeps_its_place(
    before: tuple[Path | None, ...], wanted: tuple[Path, ...], after: tuple[Path | None, ...]
) -> None:
    assert placed(before, wanted) == after


def test_the_newest_are_served_and_drafts_are_not(tmp_path: Path) -> None:
    for at, name in enumerate(["old.gguf", "b.gguf", "a.gguf", ".x.draft", ".neutral.gguf", "notes.txt"]):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, ns=(at, at))
    assert newest(tmp_path, 2) == (tmp_path / "a.gguf", tmp_path / "b.gguf")
    assert newest(tmp_path / "nowhere", 2) == ()


def test_the_neutral_adapter_is_whole_and_written_once(tmp_path: Path) -> None:
    path = neutral_adapter(tmp_path / "made")
    written = path.stat().st_mtime_ns
    said, shapes = read_gguf(path)
    assert (said["general.type"], said["adapter.type"]) == ("adapter", "lora")
    assert shapes == {"blk.0.attn_q.weight.lora_a": (1, 576), "blk.0.attn_q.weight.lora_b": (576, 1)}
    assert not any(path.read_bytes()[-2 * 4 * 576 :])
    assert neutral_adapter(tmp_path / "made").stat().st_mtime_ns == written
    assert os.listdir(tmp_path / "made") == [path.name]
