"""Java's archive of Kafka's classes: made once, used by each start, and missed by none that has it not."""

import fcntl
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedded import aot_cache, kafka
from embedded.errors import EmbeddedError
from embedded.kafka_jars import ensure_jars, java


class Program:
    """Stands for the run that makes the archive."""

    def __init__(self, *, writes: bytes | None = b"classes", starts: bool = True) -> None:
        self.runs, self.told, self._writes, self._starts = 0, 0, writes, starts

    def train(self, options: Sequence[str]) -> None:
        self.runs += 1
        (option,) = options
        if self._writes is not None:
            Path(option.removeprefix("-XX:AOTCacheOutput=")).write_bytes(self._writes)
        if not self._starts:
            raise EmbeddedError("it did not start")

    def tell(self) -> None:
        self.told += 1


def _options(file: Path, program: Program) -> list[str]:
    return aot_cache.options(file, program.train, making=program.tell)


def test_it_is_made_once_also_by_several_at_a_time(tmp_path: Path) -> None:
    file, program = tmp_path / "aot" / "kafka.aot", Program()
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda _: _options(file, program), range(16)))
    assert told == [[f"-XX:AOTCache={file}"]] * 16
    assert (program.runs, program.told) == (1, 1)
    assert file.read_bytes() == b"classes"


def test_where_it_cannot_be_made_java_starts_without_and_it_is_not_tried_each_time(tmp_path: Path) -> None:
    file, program = tmp_path / "kafka.aot", Program(writes=None)
    assert _options(file, program) == _options(file, program) == []
    assert program.runs == 1
    file.unlink()
    assert _options(file, Program()) == [f"-XX:AOTCache={file}"]


def test_a_program_that_did_not_start_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "kafka.aot"
    assert _options(file, Program(writes=b"half", starts=False)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["kafka.lock"]
    assert _options(file, Program()) == [f"-XX:AOTCache={file}"]
    assert file.read_bytes() == b"classes"


def test_what_a_killed_one_left_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / "kafka.making-1").write_bytes(b"half")
    _options(tmp_path / "kafka.aot", Program())
    assert {path.name for path in tmp_path.iterdir()} == {"kafka.aot", "kafka.lock"}


def test_another_that_hangs_while_it_makes_it_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aot_cache, "WAIT_S", 0.2)
    file, program = tmp_path / "kafka.aot", Program()
    with (tmp_path / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert _options(file, program) == []
    assert program.runs == 0
    assert _options(file, program) == [f"-XX:AOTCache={file}"]


def test_java_starts_without_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "aot").write_text("a file, where the folder would be")
    program = Program()
    assert _options(tmp_path / "aot" / "kafka.aot", program) == []
    assert program.runs == 0


@pytest.mark.integration
def test_java_takes_most_of_kafkas_classes_from_it_and_does_without_a_broken_one(tmp_path: Path) -> None:
    jars = ensure_jars(print)
    options = kafka.java_options(jars, print)
    (archive,) = (Path(option.partition("=")[2]) for option in options if "AOTCache" in option)
    broken = tmp_path / "broken.aot"
    broken.write_bytes(archive.read_bytes()[:100_000])

    loaded = _classes(jars, options)
    assert loaded["archived"] > 0.9 * loaded["all"]
    without = _classes(jars, [option.replace(str(archive), str(broken)) for option in options])
    assert without["archived"] == 0
    assert without["all"] > 500


def _classes(jars: list[Path], options: list[str]) -> dict[str, int]:
    """Of a Java that only makes an id."""
    words = ["-Xlog:class+load", "-cp", os.pathsep.join(map(str, jars)), "kafka.tools.StorageTool", "random-uuid"]
    done = subprocess.run([java(), *options, *words], capture_output=True, text=True, timeout=120, check=True)
    lines = [line for line in done.stdout.splitlines() if "source: " in line]
    return {"all": len(lines), "archived": sum("shared objects file" in line for line in lines)}
