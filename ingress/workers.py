"""Who works: what each worker said in its last heartbeat."""

from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Response

from ingress.services import Admin, Found
from schemas.events import WorkerHeartbeat
from transport.workers import SILENT_WORKER_S

router = APIRouter(tags=["operations"])


@router.get("/workers")
async def workers(user: Admin, found: Found) -> Response:  # noqa: ARG001 an admin must ask
    """Every worker heard of within the hour, the live ones first (admins only)."""
    now = datetime.now(UTC)
    beats = [(beat, found.workers.age_s(name)) for name, beat in found.workers.values.items()]
    known = [item_of(beat, age_s=age_s) for beat, age_s in beats if not beat.is_forgotten(now)]
    items = sorted(known, key=lambda item: (not item["alive"], item["worker"]))
    return Response(orjson.dumps({"items": items, "next": None}), 200, media_type="application/json")


def item_of(beat: WorkerHeartbeat, *, age_s: float) -> dict[str, Any]:
    """One worker as admins see it; `age_s`: of what it said last, `alive`: False also for one that said good-bye."""
    return {
        "worker": beat.worker,
        "alive": not beat.stopped and age_s < SILENT_WORKER_S,
        "age_s": round(age_s, 1),
        **beat.model_dump(include={"roles", "partitions", "stages", "providers", "version", "http"}),
    }
