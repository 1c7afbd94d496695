"""`python -m chaos`: run the suite and print the table; exits with 1 where something that was promised did not hold."""

import argparse
import logging
import secrets
import sys

from chaos.faults.registry import all_faults
from chaos.mutants import MUTANTS
from chaos.run import Plan, run

SHORT_JOBS, SHORT_DURATION_S = 3_000, 220.0


def main() -> int:
    """Command line."""
    known = all_faults()
    parser = argparse.ArgumentParser(prog="make chaos", description="Break things on purpose, and count.")
    parser.add_argument("--jobs", type=int, default=None, help="that are to be accepted")
    parser.add_argument("--duration-s", type=float, default=None, help="about so long; 0: as long as it takes")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to have it again")
    parser.add_argument("--consumer", choices=("ours", "stock"), default="ours", help="stock: Faust's, which loses")
    parser.add_argument("--faults", default=None, help=f"rows, with commas: {','.join(fault.row for fault in known)}")
    parser.add_argument(
        "--rounds",
        type=int,
        default=None,
        help="over all faults, then no more jobs; else until there were all jobs and all faults",
    )
    parser.add_argument("--short", action="store_true", help="the short cut: a few rows, each small")
    parser.add_argument("--mutant", choices=tuple(MUTANTS), default=None, help="the product with a bug put in")
    parser.add_argument("--keep", action="store_true", help="keep ledger and logs also where nothing was wrong")
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that is away is what is wanted here
    rows = given.faults.split(",") if given.faults else None
    if rows and (strange := set(rows) - {fault.row for fault in known}):
        parser.error(f"no such rows: {', '.join(sorted(strange))}")
    short = given.short or bool(given.duration_s and given.duration_s <= 300)
    chosen = [fault for fault in known if (fault.row in rows if rows else fault.short or not short)]
    plan = Plan(
        jobs=given.jobs if given.jobs is not None else SHORT_JOBS if short else 100_000,
        duration_s=given.duration_s if given.duration_s is not None else SHORT_DURATION_S if short else 2_300,
        seed=given.seed if given.seed is not None else secrets.randbelow(10**6),
        consumer=given.consumer,
        faults=chosen,
        short=short,
        rounds=given.rounds,
        keep=given.keep,
        mutant=given.mutant,
    )
    return 1 if run(plan).failed else 0


sys.exit(main())
