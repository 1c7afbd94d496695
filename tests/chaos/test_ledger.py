"""What was written is there, also where its writer was killed in the middle of a line."""

from pathlib import Path

from chaos.ledger import Ledger, read


def test_lines_of_all_writers_are_read_and_a_cut_one_is_passed_over(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path / "one.jsonl"), Ledger(tmp_path / "other.jsonl")
    one.write("intent", key="a")
    other.write("call", key="a", n=1)
    one.close()
    other.close()
    with (tmp_path / "one.jsonl").open("ab") as file:
        file.write(b'{"kind": "ans')
    lines = list(read(tmp_path))
    assert [(line["kind"], line["key"]) for line in lines] == [("intent", "a"), ("call", "a")]
    assert all(line["t"] > 1_700_000_000 for line in lines)


def test_a_second_run_of_a_writer_appends(tmp_path: Path) -> None:
    for number in range(2):
        ledger = Ledger(tmp_path / "x.jsonl")
        ledger.write("call", key=str(number), n=1)
        ledger.close()
        ledger.close()
    assert [line["key"] for line in read(tmp_path)] == ["0", "1"]
