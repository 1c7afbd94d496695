"""Collections in a folder, each a shard of Qdrant's engine; not for two threads at once."""

import contextlib
import fcntl
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import orjson
import qdrant_edge as edge
from pydantic import TypeAdapter
from qdrant_client.http import models

from embedded import vector_wire as wire
from embedded.errors import EmbeddedError
from embedded.vector_wire import RefusedError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
MAX_COLLECTIONS = 1000
MAX_RESULTS = 10_000
SELECTOR: TypeAdapter[models.PointsSelector] = TypeAdapter(models.FilterSelector | models.PointIdsList)
KEPT_S = 5.0  # after that, what is written is in the segments, and the log of it ends


class Collection:
    """A shard, and what its maker said of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept: dict[str, Any] = json.loads((folder / "collection.json").read_text())
        self.made = models.CreateCollection.model_validate(kept["made"])
        self.indexes: dict[str, Any] = kept["indexes"]
        self.shard = edge.EdgeShard.load(str(folder / "shard"))
        self.dirty_since: float | None = None
        self.deleted_since_vacuum = False

    def keep(self) -> None:
        """Write down what it is; whole, or as before."""
        draft = self.folder / "collection.json.new"
        kept = {"made": self.made.model_dump(mode="json", exclude_none=True), "indexes": self.indexes}
        draft.write_text(json.dumps(kept))
        draft.replace(self.folder / "collection.json")

    def update(self, operation: Any) -> None:
        """It is in the log when this returns, and so outlives a kill."""
        self.shard.update(operation)
        if self.dirty_since is None:
            self.dirty_since = time.monotonic()


class VectorStore:
    """All collections of a folder, which one process has."""

    def __init__(self, folder: Path) -> None:
        """Open what is there.

        Raises:
            EmbeddedError: Another process has the folder, or a collection cannot be read.
        """
        self._folder = folder / "collections"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise EmbeddedError(f"the vectors in {folder} are served by another process: end that first") from None
        self._collections: dict[str, Collection] = {}
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith("."):  # half made, or half deleted
                shutil.rmtree(path, ignore_errors=True)
                continue
            try:
                self._collections[path.name] = Collection(path)
            except Exception as error:  # whatever the engine says
                self.close()
                raise EmbeddedError(
                    f"the collection in {path} cannot be read ({error}): restore it, or remove the folder and ingest "
                    "its documents again"
                ) from None

    def close(self) -> None:
        """With all in place."""
        for collection in self._collections.values():
            collection.shard.flush()
            collection.shard.close()
        self._collections.clear()
        self._lock.close()

    # --- collections ---

    def names(self) -> list[str]:
        """Of all."""
        return sorted(self._collections)

    def has(self, name: str) -> bool:
        """True where it is."""
        return name in self._collections

    def create(self, name: str, given: models.CreateCollection) -> None:
        """Make it, whole or not at all."""
        if not NAME.fullmatch(name):
            raise RefusedError(400, "a collection's name has letters, digits, dots, lines, and at most 200 of them")
        if name in self._collections:
            raise RefusedError(409, f"Wrong input: Collection `{name}` already exists!")
        if len(self._collections) >= MAX_COLLECTIONS:
            raise RefusedError(400, f"there are {MAX_COLLECTIONS} collections, and there cannot be more")
        config = wire.config(given)
        draft = self._folder / f".{name}"
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "shard").mkdir(parents=True)
        shard = edge.EdgeShard.create(str(draft / "shard"), config)
        shard.flush()
        shard.close()
        kept = {"made": given.model_dump(mode="json", exclude_none=True), "indexes": {}}
        (draft / "collection.json").write_text(json.dumps(kept))
        draft.rename(self._folder / name)
        self._collections[name] = Collection(self._folder / name)

    def drop(self, name: str) -> bool:
        """Remove it; False where there is none."""
        collection = self._collections.pop(name, None)
        if collection is None:
            return False
        collection.shard.close()
        gone = self._folder / f".{name}"
        shutil.rmtree(gone, ignore_errors=True)
        collection.folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def info(self, name: str) -> dict[str, Any]:
        """What it is."""
        collection = self._of(name)
        return wire.info(collection.made, collection.shard, collection.indexes)

    def create_index(self, name: str, given: models.CreateFieldIndex) -> None:
        """Make it; of one that is there nothing comes."""
        collection = self._of(name)
        operation = wire.index(given)
        params = given.field_schema if isinstance(given.field_schema, models.KeywordIndexParams) else None
        shown = params.model_dump(mode="json", exclude_none=True) if params else None
        if collection.indexes.get(given.field_name, ...) == shown:
            return
        self._updated(collection, operation)
        collection.indexes[given.field_name] = shown
        collection.keep()

    # --- points ---

    def upsert(self, name: str, body: bytes) -> None:
        """Return once they are safe."""
        collection = self._of(name)
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise RefusedError(400, "the body is no JSON") from None
        if not isinstance(given, dict):
            raise RefusedError(400, "the body is no object")
        self._updated(collection, wire.points(given))

    def delete(self, name: str, body: bytes) -> None:
        """Return once they are gone for good."""
        collection = self._of(name)
        self._updated(collection, wire.selected(SELECTOR.validate_json(body)))
        collection.deleted_since_vacuum = True

    def query(self, name: str, requests: list[models.QueryRequest]) -> list[dict[str, Any]]:
        """One reply for each."""
        collection = self._of(name)
        for request in requests:
            _check_limit((request.limit or 10) + (request.offset or 0))
        asked = edge.QueryBatchRequest([wire.query(request) for request in requests])
        with _engine():
            found = collection.shard.query_batch(asked)
        return [{"points": [wire.scored(point) for point in points]} for points in found]

    def count(self, name: str, given: models.CountRequest) -> int:
        """Of those that fit."""
        wire.only(given, "filter", "exact")
        request = edge.CountRequest(exact=True, filter=wire.filtered(given.filter))
        collection = self._of(name)
        with _engine():
            counted: int = collection.shard.count(request)
        return counted

    def scroll(self, name: str, given: models.ScrollRequest) -> dict[str, Any]:
        """A page of those that fit, in the order of their ids."""
        wire.only(given, "filter", "limit", "offset", "with_payload", "with_vector")
        _check_limit(given.limit or 10)
        offset = given.offset if isinstance(given.offset, int | None) else str(given.offset)
        request = edge.ScrollRequest(
            offset=offset, limit=given.limit or 10, filter=wire.filtered(given.filter),
            with_payload=True if given.with_payload is None else bool(given.with_payload),
            with_vector=bool(given.with_vector),
        )  # fmt: skip
        collection = self._of(name)
        with _engine():
            found, following = collection.shard.scroll(request)
        after = following if isinstance(following, int | None) else str(following)
        return {"points": [wire.record(point) for point in found], "next_page_offset": after}

    # --- behind the calls ---

    def settle(self, *, now: float) -> None:
        """Put into its place what was written a while ago, and what was deleted out of it. Half a second at most
        for 20,000 points, in which nothing else is done.
        """
        for collection in self._collections.values():
            if collection.dirty_since is not None and now - collection.dirty_since >= KEPT_S:
                if collection.deleted_since_vacuum:
                    collection.shard.optimize()  # does nothing until a fifth is deleted
                    collection.deleted_since_vacuum = False
                collection.shard.flush()
                collection.dirty_since = None

    def _of(self, name: str) -> Collection:
        try:
            return self._collections[name]
        except KeyError:
            raise RefusedError(404, f"Not found: Collection `{name}` doesn't exist!") from None

    def _updated(self, collection: Collection, operation: Any) -> None:
        with _engine():
            collection.update(operation)


@contextlib.contextmanager
def _engine() -> Any:
    """What the engine refuses is the caller's fault; what the disk refuses is not."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # the engine knows no other class
        message = str(error)
        status = 500 if re.search(r"service|I/O|IO error|space", message, re.IGNORECASE) else 400
        raise RefusedError(status, message[:500]) from None


def _check_limit(limit: int) -> None:
    if limit > MAX_RESULTS:
        raise RefusedError(400, f"at most {MAX_RESULTS} results are given at once")
