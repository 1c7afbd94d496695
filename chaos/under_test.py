"""The `assistant` command as the suite starts it: the product, with a failpoint or stock Faust's consumer put in.

`FAIL=<point>:<action>@<n>` arms a failpoint; `CONSUMER=stock` takes Faust's consumer. Neither is known to the product.
"""

import os

import cli
from chaos import failpoints, stock


def main() -> None:
    """Command line; as `assistant`."""
    if armed := os.environ.get("FAIL"):
        failpoints.install(failpoints.Failpoint.parse(armed))
    if os.environ.get("CONSUMER") == "stock":
        stock.install()
    cli.main()


if __name__ == "__main__":
    main()
