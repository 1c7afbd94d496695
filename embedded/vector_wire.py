"""Qdrant's REST API as its engine has it: requests and replies. What the engine is not asked for is refused by name."""

from typing import Any

import qdrant_edge as edge
from pydantic import BaseModel
from qdrant_client.http import models


class RefusedError(Exception):
    """A request that is not done, and why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def only(given: BaseModel, *names: str) -> None:
    """Refuse what else is set: it would be ignored."""
    others = [name for name in given.model_fields_set if name not in names and getattr(given, name) is not None]
    if others:
        what = ", ".join(f"`{name}`" for name in sorted(others))
        raise RefusedError(501, f"this server does not know {what} of {type(given).__name__}: run Qdrant itself for it")


def config(given: models.CreateCollection) -> Any:
    """Of a new collection."""
    only(given, "vectors", "sparse_vectors", "hnsw_config")
    if not isinstance(given.vectors, dict):
        raise RefusedError(501, "this server takes vectors with names only")
    dense = {}
    for name, vector in given.vectors.items():
        only(vector, "size", "distance")
        dense[name] = edge.EdgeVectorParams(vector.size, getattr(edge.Distance, vector.distance.value))
    sparse = {}
    for name, params in (given.sparse_vectors or {}).items():
        only(params, "modifier")
        modifier = edge.Modifier.Idf if params.modifier == models.Modifier.IDF else None
        sparse[name] = edge.EdgeSparseVectorParams(modifier=modifier)
    graph = given.hnsw_config or models.HnswConfigDiff()
    only(graph, "m", "payload_m", "ef_construct", "full_scan_threshold")
    return edge.EdgeConfig(
        vectors=dense, sparse_vectors=sparse,
        hnsw_config=edge.HnswIndexConfig(
            m=16 if graph.m is None else graph.m, ef_construct=graph.ef_construct or 100,
            full_scan_threshold=graph.full_scan_threshold or 10_000, payload_m=graph.payload_m,
        ),
        # Never a graph: to build one takes 2 ms a point, in which nothing else is done; without it a search is exact.
        optimizers=edge.EdgeOptimizersConfig(
            indexing_threshold=10**9, deleted_threshold=0.2, vacuum_min_vector_number=1000
        ),
    )  # fmt: skip


def index(given: models.CreateFieldIndex) -> Any:
    """A keyword index of a field."""
    schema = given.field_schema
    if isinstance(schema, models.KeywordIndexParams):
        only(schema, "type", "is_tenant")
        params = edge.KeywordIndexParams(is_tenant=schema.is_tenant)
    elif schema == models.PayloadSchemaType.KEYWORD:
        params = edge.KeywordIndexParams()
    else:
        raise RefusedError(501, "this server knows keyword indexes only")
    return edge.UpdateOperation.create_field_index(given.field_name, params)


def points(given: dict[str, Any]) -> Any:
    """Points to be stored. They are looked at here, for to have pydantic do it takes ten times as long.

    Source: Qdrant's OpenAPI document, PointsList.
    """
    if unknown := set(given) - {"points"}:
        raise RefusedError(501, f"this server does not know {', '.join(sorted(unknown))} of an upsert")
    try:
        made = [_point(point) for point in given["points"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RefusedError(400, f"these are no points: {type(error).__name__}: {error}"[:300]) from None
    return edge.UpdateOperation.upsert_points(made)


def _point(given: dict[str, Any]) -> Any:
    if set(given) - {"id", "vector", "payload"}:
        raise RefusedError(400, "a point has an id, a vector and a payload, and nothing else")
    if not isinstance(given["vector"], dict):
        raise RefusedError(501, "this server takes vectors with names only")
    vectors: dict[str, Any] = {}
    for name, vector in given["vector"].items():
        if isinstance(vector, dict):
            if set(vector) != {"indices", "values"} or len(vector["indices"]) != len(vector["values"]):
                raise RefusedError(400, "a sparse vector has as many indices as values, and nothing else")
            if len(set(vector["indices"])) != len(vector["indices"]):
                raise RefusedError(400, "an index of a sparse vector is there twice")
            vectors[name] = edge.SparseVector(vector["indices"], vector["values"])
        else:
            vectors[name] = vector
    return edge.Point(given["id"], vectors, given.get("payload"))


def selected(given: models.PointsSelector) -> Any:
    """Points to be deleted."""
    if isinstance(given, models.FilterSelector):
        only(given, "filter")
        return edge.UpdateOperation.delete_points_by_filter(filtered(given.filter))
    only(given, "points")
    return edge.UpdateOperation.delete_points([str(one) if not isinstance(one, int) else one for one in given.points])


def query(given: models.QueryRequest) -> Any:
    """The nearest to one vector."""
    only(
        given, "query", "using", "filter", "params", "score_threshold", "limit", "offset", "with_payload", "with_vector"
    )
    nearest = given.query
    if isinstance(nearest, models.NearestQuery):
        only(nearest, "nearest")
        nearest = nearest.nearest
    if isinstance(nearest, models.SparseVector):
        vector: Any = edge.SparseVector(nearest.indices, nearest.values)
    elif isinstance(nearest, list) and nearest and not isinstance(nearest[0], list):
        vector = nearest
    else:
        raise RefusedError(501, "this server knows queries by one vector only, dense or sparse")
    return edge.QueryRequest(
        given.limit or 10, offset=given.offset, query=edge.Query.Nearest(vector, using=given.using),
        filter=filtered(given.filter), score_threshold=given.score_threshold, params=_params(given.params),
        with_payload=_shown(given.with_payload), with_vector=_shown(given.with_vector),
    )  # fmt: skip


def _params(given: models.SearchParams | None) -> Any:
    if given is None:
        return None
    only(given, "exact", "idf")  # every search is exact
    if isinstance(given.idf, models.IdfCorpusParams):
        return edge.SearchParams(idf=edge.IdfParams(corpus=filtered(given.idf.corpus)))
    return edge.SearchParams()


def _shown(given: Any) -> Any:
    if given is None or isinstance(given, bool) or (isinstance(given, list) and given):
        return given
    raise RefusedError(501, "this server knows with_payload and with_vector as true, false or a list of names")


def filtered(given: models.Filter | None) -> Any:
    """A filter, with its conditions to any depth that JSON may have here."""
    if given is None:
        return None
    only(given, "must", "should", "must_not")
    return edge.Filter(
        must=_conditions(given.must), should=_conditions(given.should), must_not=_conditions(given.must_not)
    )  # fmt: skip


def _conditions(given: Any) -> Any:
    if given is None:
        return None
    return [_condition(one) for one in (given if isinstance(given, list) else [given])]


def _condition(given: Any) -> Any:
    if isinstance(given, models.Filter):
        return filtered(given)
    if isinstance(given, models.HasIdCondition):
        return edge.HasIdCondition({one if isinstance(one, int) else str(one) for one in given.has_id})
    if not isinstance(given, models.FieldCondition):
        raise RefusedError(501, f"this server does not know conditions of the kind {type(given).__name__}")
    only(given, "key", "match")
    match = given.match
    if isinstance(match, models.MatchValue):
        return edge.FieldCondition(given.key, match=edge.MatchValue(match.value))
    if isinstance(match, models.MatchAny):
        return edge.FieldCondition(given.key, match=edge.MatchAny(match.any))
    if isinstance(match, models.MatchExcept):
        return edge.FieldCondition(given.key, match=edge.MatchExcept(match.except_))
    raise RefusedError(501, f"this server does not know conditions of the kind {type(match).__name__}")


def scored(point: Any) -> dict[str, Any]:
    """A point that was found."""
    return record(point) | {"version": point.version, "score": point.score}


def record(point: Any) -> dict[str, Any]:
    """A point as it is."""
    shown: dict[str, Any] = {"id": point.id if isinstance(point.id, int) else str(point.id)}
    if point.payload is not None:
        shown["payload"] = point.payload
    if point.vector is not None:
        shown["vector"] = {
            name: {"indices": vector.indices, "values": vector.values}
            if isinstance(vector, edge.SparseVector)
            else vector
            for name, vector in point.vector.items()
        }
    return shown


def info(given: models.CreateCollection, shard: Any, indexes: dict[str, Any]) -> dict[str, Any]:
    """A collection, as CollectionInfo."""
    said = shard.info()
    graph = given.hnsw_config or models.HnswConfigDiff()
    return {
        "status": "green", "optimizer_status": "ok", "points_count": said.points_count,
        "indexed_vectors_count": said.indexed_vectors_count, "segments_count": said.segments_count,
        "payload_schema": {
            name: {"data_type": "keyword", "points": said.payload_schema[name].points, "params": params}
            for name, params in indexes.items()
            if name in said.payload_schema
        },
        "config": {
            "params": given.model_dump(mode="json", include={"vectors", "sparse_vectors"}, exclude_none=True),
            "hnsw_config": {
                "m": 16, "ef_construct": 100, "full_scan_threshold": 10_000,
                **graph.model_dump(mode="json", exclude_none=True),
            },
            "optimizer_config": {
                "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
        },
    }  # fmt: skip
