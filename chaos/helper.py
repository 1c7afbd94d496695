"""The suite's own processes beside the system: provider, receiver, proxy."""

import os
import subprocess
import sys
from dataclasses import dataclass

from embedded.part import Part
from embedded.spawn import spawn
from tests.deployment import ROOT


@dataclass
class Helper:
    """A process of the suite's own: provider, receiver. It tells its address in its first line."""

    popen: "subprocess.Popen[bytes]"
    url: str

    @classmethod
    def start(cls, module: str, *words: str) -> "Helper":
        """Called in the main thread."""

        async def never_asked() -> bool:
            return True

        part = Part(module, [sys.executable, "-m", module, *words], never_asked, env=dict(os.environ), cwd=ROOT)
        reading, writing = os.pipe()
        popen = spawn(part, stdout=writing)
        os.close(writing)
        with os.fdopen(reading) as output:
            url = output.readline().strip()
        return cls(popen, url)

    def close(self) -> None:
        """End it; may be called twice."""
        self.popen.kill()
        self.popen.wait(10)
