"""Runs the ingress under uvicorn: drains on SIGTERM, says who has the port."""

import logging
import socket
from types import FrameType

import uvicorn

from ingress.app import create_app
from ingress.cluster import check_cluster
from ingress.http.bounded_http import bounded_http
from settings import Settings
from transport import garbage
from transport.ports import why_not

logger = logging.getLogger(__name__)
GRACE_S = 30


class PortTakenError(Exception):
    """Somebody else listens there."""


class _Server(uvicorn.Server):
    """A stopping replica takes no more jobs, and lets those who wait finish."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.services.submissions.draining = True  # type: ignore[union-attr]  # our FastAPI
        super().handle_exit(sig, frame)


def serve_ingress(settings: Settings) -> None:
    """Blocks until told to stop.

    Raises:
        PortTakenError: Names the port's holder.
        MissingSettingError: Names the variable to set.
        ClusterRefusesError: Kafka does not take this ingress, or is not what it is to be.
    """
    app = create_app(settings)
    check_cluster(settings)
    listener = _listen(settings.ingress_host, settings.ingress_port)
    config = uvicorn.Config(
        app, access_log=False, log_config=None, timeout_keep_alive=30, timeout_graceful_shutdown=GRACE_S,
        server_header=False, backlog=2048, ws="none",
        http=bounded_http(
            max_head_bytes=settings.max_head_bytes, head_timeout_s=settings.head_timeout_s,
            body_timeout_s=settings.body_timeout_s,
        ),
    )  # fmt: skip
    garbage.collect_seldom()
    logger.info("listening on http://%s:%d", *listener.getsockname()[:2])
    _Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortTakenError(why_not(port, error, setting="INGRESS_PORT")) from None
    return listener
