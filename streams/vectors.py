"""Where a worker's vectors lie: at `QDRANT_URL`, or in the folder `QDRANT_PATH`, of which it is the only owner.

There is no third: a worker that made up a place of its own would keep documents where no other finds them.
"""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from settings import Settings
from streams.errors import StartError

if TYPE_CHECKING:
    from vectors.qdrant import QdrantRepository


NOT_NAMED = (
    "QDRANT_URL is not set, which is where documents' vectors are: name the Qdrant server (or with QDRANT_PATH a "
    "folder for this worker alone), or run `assistant up`"
)


class Vectors:
    """Opened by the first who asks: two roles of one process share them."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        """`stack`: closes what was opened."""
        self._settings, self._stack = settings, stack
        self._opened: QdrantRepository | None = None

    @property
    def are_named(self) -> bool:
        """Whether a setting says where they lie."""
        return self._settings.qdrant_url is not None or self._settings.qdrant_path is not None

    def opened(self) -> "QdrantRepository":
        """The repository, always the same one.

        Raises:
            StartError: It cannot be had; the message says what to do.
        """
        if self._opened is None:
            from vectors.opening import VectorsError  # what it imports takes 60 MB, which no other role is to have

            try:
                self._opened = open_vectors(self._settings)
            except VectorsError as error:
                raise StartError(str(error)) from None
            self._stack.push_async_callback(self._opened.close)
        return self._opened


def open_vectors(settings: Settings) -> "QdrantRepository":
    """Raises VectorsError where they cannot be opened."""
    from vectors.opening import VectorsError, open_folder, open_server

    namespace = settings.kafka_topic_prefix  # whoever shares a Kafka by it shares a Qdrant, too
    if settings.qdrant_url is None:
        if settings.qdrant_path is None:
            raise VectorsError(NOT_NAMED)
        return open_folder(settings.qdrant_path, namespace=namespace)
    key = settings.qdrant_api_key
    return open_server(
        settings.qdrant_url, api_key=key.get_secret_value() if key else None, cacert=settings.qdrant_cacert,
        namespace=namespace, production=settings.production,
    )  # fmt: skip
