"""Calls that a fuzzer makes of the OpenAPI document, as everybody: no bug, and nothing that the document does not say.

More than five thousand of them with `make test-all`; `FUZZ_EXAMPLES=30` makes ten times as many of the random ones.
"""

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SECRET
from tests.deployment import client_of, plain_client, register
from tests.pipeline.conftest import Running
from transport.tokens import Tokens

pytestmark = pytest.mark.integration
EACH = int(os.environ.get("FUZZ_EXAMPLES", "3"))  # of the random ones, per operation and caller
SEED = os.environ.get("FUZZ_SEED", "20261129")
# With which a caller would end its own token; an admin learns of names that there are.
OUT = "log_out_everywhere_auth_logout_everywhere_post"
ENDS_ITSELF = {"user": (OUT,), "admin": (OUT, "change_users__user_id__patch", "delete_users__user_id__delete")}
CASES = {"user": 2_500, "admin": 2_500}  # who gets no further than the door is asked less
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


async def callers(running: Running) -> dict[str, dict[str, str]]:
    expired = Tokens([SECRET], lifetime_s=60, now=lambda: 1_000_000_000).issue("root", role="admin", epoch=0)
    async with client_of(running.ingress) as admin:
        user = await register(admin, f"fuzzed-{uuid.uuid4().hex[:6]}")
        as_admin = await register(admin, f"fuzzed-{uuid.uuid4().hex[:6]}", role="admin")
    return {"nobody": {}, "expired": {"authorization": f"Bearer {expired}"}, "user": user, "admin": as_admin}


async def fuzz(
    running: Running, headers: dict[str, str], folder: Path, *, but: Sequence[str], phases: str
) -> tuple[int, dict[str, Any], str]:
    """Exit code, report, and what was printed."""
    report, printed = folder / "report.json", folder / "printed.txt"
    words = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
    words += [word for operation in but for word in ("--exclude-operation-id", operation)]
    with printed.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "schemathesis.cli", "run", f"{running.ingress.http}/openapi.json", "--checks", CHECKS,
            "--phases", phases, "--max-examples", str(EACH), "--seed", SEED, "--no-shrink",
            "--generation-database", "none", "--warnings", "off", "--continue-on-failure", "--no-color",
            "--suppress-health-check", "all", "--request-timeout", "40", "--report-json-path", str(report), *words,
            cwd=folder, stdout=output, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        code = await process.wait()
    return code, json.loads(report.read_text()), printed.read_text()


@pytest.mark.parametrize(
    "who",
    ["nobody", pytest.param("expired", marks=pytest.mark.long), "user", pytest.param("admin", marks=pytest.mark.long)],
)
async def test_no_call_finds_a_bug_or_what_is_not_documented(running: Running, who: str, tmp_path: Path) -> None:
    headers, is_let_in = (await callers(running))[who], who in CASES
    phases = "examples,coverage,fuzzing" if is_let_in else "fuzzing"
    code, report, printed = await fuzz(running, headers, tmp_path, but=ENDS_ITSELF.get(who, ()), phases=phases)
    assert code == 0, printed[-6000:]
    assert report["operations"]["tested"] == report["operations"]["selected"] > 40
    async with plain_client(base_url=running.ingress.http) as client:  # it has not been somebody else's run meanwhile
        assert (await client.get("/jobs", headers=headers)).status_code == (200 if is_let_in else 401)
    assert report["test_cases"]["generated"] >= CASES.get(who, 100)
    assert running.worker.popen.poll() is None
