"""The `assistant` command as the suite starts it: the product, with a failpoint or stock Faust's consumer put in.

`FAIL=<point>:<action>@<n>` arms a failpoint; `CONSUMER=stock` takes Faust's consumer; `MUTANT=<name>` puts a bug in;
`WEBHOOK_LEASE_S=<n>` has a webhook's lease run out sooner. The product knows none of them.
A prompt with `[poison=<role>]` in it ends each process of that role which takes it in hand.
"""

import os
from datetime import timedelta

import cli
from chaos import failpoints, mutants, stock
from sinks import webhook_store


def main() -> None:
    """Command line; as `assistant`."""
    failpoints.install_poison()
    if armed := os.environ.get("FAIL"):
        failpoints.install(failpoints.Failpoint.parse(armed))
    if os.environ.get("CONSUMER") == "stock":
        stock.install()
    if seconds := os.environ.get("WEBHOOK_LEASE_S"):
        webhook_store.LEASE = timedelta(seconds=float(seconds))
    if name := os.environ.get("MUTANT"):
        mutants.MUTANTS[name]()
    cli.main()


if __name__ == "__main__":
    main()
