"""`assistant ingest FILE...` and `assistant documents`, as people see them."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.table import Table

from client.api import MAX_RATE_LIMIT_WAITS, AssistantClient, ClientError, RateLimitedError
from client.following import INTERRUPTED, Bar, followed, say

MIB = 1_048_576


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be ingested, and how. `source`: of a single file; its own name otherwise."""

    files: Sequence[Path]
    source: str | None = None
    provider: str | None = None
    as_json: bool = False


class FileBar(Bar):
    """Tells how far a file is."""

    def sent(self, size: int, of: int) -> None:
        """So many bytes are sent."""
        self.tell(f"sent {size / MIB:.1f} of {of / MIB:.1f} MiB", size, of)

    def working(self, view: dict[str, Any]) -> None:
        """Where its job is, as polled."""
        document = view.get("document") or {}
        pages, chunks = (_of(document, name) for name in ("pages", "chunks"))
        told = ", ".join(filter(None, (pages, chunks))) or view.get("stage", "accepted")
        self.tell(told, document.get("chunks", 0), document.get("chunks_total"))


def ingest(
    home: Path, wanted: Wanted, *, root_password: str | None, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Upload each file and follow it to its end; returns the exit code: 1 where one could not be ingested."""
    console, errors = Console(), Console(stderr=True)
    failed = False
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client, FileBar(errors) as bar:
            for path in wanted.files:
                try:
                    result = _ingest(client, path, wanted, bar, sleep)
                except (ClientError, OSError) as error:
                    failed = True
                    why = error.strerror if isinstance(error, OSError) else str(error)
                    say(errors, f"{path}: {why}")
                    continue
                if wanted.as_json:
                    print(json.dumps({"file": str(path), **result}, ensure_ascii=False), flush=True)  # noqa: T201 the result
                else:
                    say(console, _told(path, result))
    except ClientError as error:
        say(errors, str(error))
        return 1
    except KeyboardInterrupt:
        say(errors, "interrupted: what was ingested until then stays")
        return INTERRUPTED
    return 1 if failed else 0


def list_documents(home: Path, *, root_password: str | None, limit: int, as_json: bool) -> int:
    """List the newest documents; returns the exit code."""
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client:
            items: list[dict[str, Any]] = client.send("GET", f"/documents?limit={limit}")["items"]
    except ClientError as error:
        say(Console(stderr=True), str(error))
        return 1
    if as_json:
        print(json.dumps(items, ensure_ascii=False, indent=1))  # noqa: T201 that is the command's result
        return 0
    table = Table("document", "source", "status", "chunks", "pages", "size", "model", "updated")
    for item in items:
        status = item["status"] + (f" ({item['error']['code']})" if "error" in item else "")
        numbers = (str(item.get(name, "")) for name in ("chunks", "pages", "size"))
        model = f"{item['provider']}/{item['model']}"
        table.add_row(item["document_id"], item["source"], status, *numbers, model, item["updated_at"])
    Console().print(table)
    return 0


def delete_documents(home: Path, document_ids: Sequence[UUID], *, root_password: str | None) -> int:
    """Delete them; returns the exit code: 1 where one was not there."""
    failed = False
    try:
        with AssistantClient(home, os.environ, root_password=root_password) as client:
            for document_id in document_ids:
                try:
                    client.send("DELETE", f"/documents/{document_id}")
                except ClientError as error:
                    failed = True
                    say(Console(stderr=True), f"{document_id}: {error}")
    except ClientError as error:
        say(Console(stderr=True), str(error))
        return 1
    return 1 if failed else 0


def _ingest(
    client: AssistantClient, path: Path, wanted: Wanted, bar: FileBar, sleep: Callable[[float], None]
) -> dict[str, Any]:
    """Its job's result; a rate limit is waited out."""
    waits = 0
    while True:
        try:
            return _ingest_once(client, path, wanted, bar, sleep)
        except RateLimitedError as limited:
            if waits == MAX_RATE_LIMIT_WAITS:
                raise
            waits += 1
            sleep(limited.wait_s)


def _ingest_once(
    client: AssistantClient, path: Path, wanted: Wanted, bar: FileBar, sleep: Callable[[float], None]
) -> dict[str, Any]:
    size = path.stat().st_size
    bar.begin(path.name, size or None)
    query = {"wait": "false", "source": wanted.source, "provider": wanted.provider}
    given = {name: value for name, value in query.items() if value is not None}
    job_id = client.upload(path, "/ingestion/ingest", given, on_sent=lambda sent: bar.sent(sent, size))["job_id"]
    view = followed(client, job_id, bar.working, sleep)
    if view["status"] == "completed":
        result: dict[str, Any] = view["result"]
        return result
    error = view["error"]
    told = f"{error['code']}: {error['message']}"
    if error["code"] == "rate-limited":
        raise RateLimitedError(told, error.get("retry_after_s", 5))
    raise ClientError(told)


def _told(path: Path, result: dict[str, Any]) -> str:
    pages = f", {result['pages']} pages" if result.get("pages") else ""
    same = ", unchanged" if result.get("unchanged") else ""
    return f"{path}: {result['num_chunks']} chunks{pages}{same} ({result['document_id']})"


def _of(document: dict[str, Any], what: str) -> str | None:
    done, total = document.get(what), document.get(f"{what}_total")
    if not done and not total:
        return None
    return f"{done or 0} of {total} {what}" if total else f"{done} {what}"
