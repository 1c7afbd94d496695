"""Which web pages may call from a browser; none, unless an operator names them.

No cookie is ever used: a page has to bring the token itself, so nothing is done in its user's name behind their back.
"""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

METHODS = ("GET", "POST", "PATCH", "DELETE")
MAY_SEND = ("authorization", "content-type", "idempotency-key", "last-event-id", "x-request-id")
MAY_SEE = ("location", "ratelimit", "ratelimit-policy", "retry-after", "x-request-id")
KEPT_S = 600  # what was said of an origin, by its browser


def install_cors(app: FastAPI, origins: Sequence[str]) -> None:
    """Answer browsers' questions for these origins; without any, none is answered."""
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=METHODS, allow_headers=MAY_SEND,
            expose_headers=MAY_SEE, allow_credentials=False, max_age=KEPT_S,
        )  # fmt: skip
