"""Where a worker's vectors lie: at `QDRANT_URL`, else in the home's folder `vectors`, of which it is the only owner."""

from contextlib import AsyncExitStack

from settings import Settings
from streams.errors import StartError
from vectors.opening import VectorsError, open_folder, open_server
from vectors.qdrant import QdrantRepository


class Vectors:
    """Opened by the first who asks: two roles of one process share them."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        """`stack`: closes what was opened."""
        self._settings, self._stack = settings, stack
        self._opened: QdrantRepository | None = None

    def opened(self) -> QdrantRepository:
        """The repository, always the same one.

        Raises:
            StartError: It cannot be had; the message says what to do.
        """
        if self._opened is None:
            try:
                self._opened = open_vectors(self._settings)
            except VectorsError as error:
                raise StartError(str(error)) from None
            self._stack.push_async_callback(self._opened.close)
        return self._opened


def open_vectors(settings: Settings) -> QdrantRepository:
    """Raises VectorsError where they cannot be opened."""
    namespace = settings.kafka_topic_prefix  # whoever shares a Kafka by it shares a Qdrant, too
    if settings.qdrant_url is None:
        return open_folder(settings.assistant_home / "vectors", namespace=namespace)
    key = settings.qdrant_api_key
    return open_server(
        settings.qdrant_url, api_key=key.get_secret_value() if key else None, cacert=settings.qdrant_cacert,
        namespace=namespace, production=settings.production,
    )  # fmt: skip
