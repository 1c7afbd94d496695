"""For whoever runs it: health, metrics, and the documentation in which a person logs in and calls everything."""

from pathlib import Path

import fastapi_offline
import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles

from ingress.http.openapi import document
from ingress.services import Services, admin, current_user, services
from transport.workers import live_workers
from vault.live import told_of

router = APIRouter(tags=["operations"])
# Swagger's page starts by a script of its own in it, and calls the address that it came from.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)
DATABASE_WITHIN_S = 1.0  # whoever asks for readiness has a deadline of their own


def problems(found: Services) -> dict[str, str]:
    """What keeps this replica from being ready, by part."""
    seen = {
        "publisher": found.publisher.problem,
        "follower": found.follower.problem,
        "streams": found.channels.problem,
        "users": None if found.user_table.is_running else "the users are not read yet",
        "workers": None if found.workers.is_running else "the workers are not read yet",
        "draining": "it is stopping" if found.submissions.draining else None,
    }
    return {part: problem for part, problem in seen.items() if problem is not None}


@router.get("/livez")
@router.get("/health")
async def live() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """Jobs can be taken; with what is wrong where not, and warnings where they can all the same."""
    found = services(request)
    wrong = problems(found)
    if (denied := request.app.state.cluster.problem) is not None:
        wrong["acls"] = denied
    stored = await found.database.answers(within_s=DATABASE_WITHIN_S)
    warnings = {} if stored else {"postgres": "stored jobs cannot be looked at now"}
    warnings |= told_of(request.app.state.live)
    body = {"ready": not wrong, "problems": wrong, "warnings": warnings, "workers": len(live_workers(found.workers))}
    return Response(orjson.dumps(body), 503 if wrong else 200, media_type="application/json")


def install_metrics(app: FastAPI, *, public: bool) -> None:
    """`GET /metrics`; for admins only where not public."""

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """For Prometheus."""
        if not public:
            await _admin_of(request)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def install_docs(app: FastAPI, *, public: bool) -> None:
    """Swagger UI at `/docs`, from files of our own: it works without the Internet."""
    folder = Path(fastapi_offline.__file__).parent / "static"
    app.mount("/static", StaticFiles(directory=folder), name="static")

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        if not public:
            await _admin_of(request)
        return Response(orjson.dumps(document(app)), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        if not public:
            await _admin_of(request)
        page = get_swagger_ui_html(
            openapi_url="openapi.json", title="assistant-stream", swagger_js_url="static/swagger-ui-bundle.js",
            swagger_css_url="static/swagger-ui.css", swagger_favicon_url="static/favicon.png",
            swagger_ui_parameters={"persistAuthorization": True, "tryItOutEnabled": True},
        )  # fmt: skip
        page.headers["content-security-policy"] = DOCS_POLICY
        return page


async def _admin_of(request: Request) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    await admin(await current_user(request, token if scheme.lower() == "bearer" else None))
