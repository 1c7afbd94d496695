"""How a part is started."""

import os
import subprocess
import sys

from embedded.part import Part
from embedded.spawn import spawn


async def _healthy() -> bool:
    return True


def test_ctrl_c_is_not_for_a_part_and_its_niceness_counts_among_all_of_them() -> None:
    """Linux parts its processors by session first: what is nice in one of its own takes as much as all the others."""
    process = spawn(Part("sleeper", [sys.executable, "-c", "input()"], _healthy), stdout=subprocess.DEVNULL)
    try:
        assert os.getpgid(process.pid) == process.pid
        assert os.getsid(process.pid) == os.getsid(0)
    finally:
        process.kill()
        process.wait(10)
