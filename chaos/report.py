"""The table."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from chaos.checker import STEADY, VIOLATIONS, Verdict
from chaos.nemesis import Injection

OTHERS = tuple(name for name in VIOLATIONS if name not in ("lost", "doubled"))


def table_of(verdict: Verdict, injections: Sequence[Injection], *, title: str) -> Table:
    """One line per fault, with the jobs that it may have hit; the same fault of several rounds is one line."""
    table = Table(title=title)
    table.add_column("row")
    table.add_column("fault")
    for column in ("times", "kills", "jobs", "lost", "doubled", "repeated", "longest pause, s", "other"):
        table.add_column(column, justify="right")
    lines: dict[str, list[Injection]] = {}
    for injection in injections:
        lines.setdefault(injection.fault.row, []).append(injection)
    _add(table, "-", "none yet", verdict, [STEADY], [])
    for row in sorted(lines, key=lambda row: (int("".join(filter(str.isdigit, row))), row)):
        of_row = lines[row]
        _add(table, row, of_row[0].fault.name, verdict, [str(one.number) for one in of_row], of_row)
    table.add_section()
    _add(table, "", "all", verdict, list(verdict.counts), list(injections))
    return table


def _add(
    table: Table, row: str, name: str, verdict: Verdict, windows: Sequence[str], injections: Sequence[Injection]
) -> None:
    def count(what: str) -> int:
        return sum(verdict.counts[window][what] for window in windows if window in verdict.counts)

    voids = [one for one in injections if one.void is not None]
    others = ", ".join(f"{what} {count(what)}" for what in OTHERS if count(what))
    if row and voids and len(voids) == len(injections):
        others = f"void: {voids[0].void}"
    pause = max((one.pause_s for one in injections), default=0.0)
    table.add_row(
        row, name, str(len(injections) - len(voids)) if injections else "", str(sum(one.kills for one in injections)),
        str(count("jobs")), str(count("lost")), str(count("doubled")), str(count("repeated")),
        f"{pause:.1f}" if injections else "", others,
    )  # fmt: skip


def print_report(
    verdict: Verdict, injections: Sequence[Injection], *, seed: int, consumer: str, kills: int,
    exits: Sequence[tuple[str, int]], not_calm: Sequence[Injection],
) -> None:  # fmt: skip
    """Table, totals, the bound that a zero stands for, and evidence of what is not zero."""
    console = Console(width=150)
    acked = verdict.total("acked")
    console.print(table_of(verdict, injections, title=f"chaos: consumer {consumer}, seed {seed}"))
    console.print(
        f"seed={seed} jobs={verdict.total('jobs')} acked={acked} refused={verdict.total('refused')} "
        f"unknown={verdict.total('unknown')} kills={kills} lost={verdict.total('lost')} "
        f"doubled={verdict.total('doubled')} repeated={verdict.total('repeated')} "
        f"webhooks={verdict.total('hooks')} webhooks-sent-again={verdict.total('hook_repeats')} "
        f"asked-to-cancel={verdict.total('asked_to_cancel')} cancelled={verdict.total('cancelled')}"
    )
    for name in (*OTHERS, "forgotten"):
        if verdict.total(name):
            console.print(f"{name}={verdict.total(name)}")
    if verdict.codes:
        told = ", ".join(f"{code} {count}" for code, count in verdict.codes.most_common())
        console.print(f"ended with an error: {told}", markup=False)
    if acked and not verdict.total("lost"):
        console.print(f"0 of {acked} lost: at most {3e6 / acked:.0f} per million, at 95 %")
    if exits:
        console.print(f"ended by themselves and started again: {', '.join(f'{name} ({code})' for name, code in exits)}")
    for injection in not_calm:
        told = f"{injection.number} row {injection.fault.row} {injection.fault.name}: {injection.not_calm}"
        console.print(f"not calm in time: {told}", markup=False)
    for line in verdict.evidence:
        console.print(line, style="red", markup=False)
