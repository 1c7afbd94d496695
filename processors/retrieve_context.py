"""Stage: retrieval-requested -> job-finished (a search), or completion-requested (a question, with what was found)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from processors.completion.estimate_tokens import estimate_tokens
from processors.documents.choose_collection import MISMATCH, choose_collection
from processors.documents.document_ports import Collection, DocumentLedger, Found, VectorRepository
from processors.filter.prompt_policy import PromptPolicy
from processors.ports import CompletionProvider, EmbeddingProvider
from processors.retrieval.nothing_found import Why, nothing_found
from processors.retrieval.passages import distinct, judged, packed, scores_of
from processors.retrieval.rag_prompt import FRAME_TOKENS
from processors.retrieval.relevance import bounds_of, relevant
from processors.retrieval.rerank import rerank
from processors.stage import Emit, StageResult
from schemas.events import CompletionRequested, JobError, JobFinished, RetrievalRequested, Retrieved
from schemas.requests import Among, ChatRequest, RagRequest, SearchMode, SearchRequest

CANDIDATES, MAX_CANDIDATES = 3, 40  # times what is wanted: some of it is double or beside the point
MAX_LOOKS = 3
DEFAULT_CONTEXT_TOKENS: Mapping[str, int] = {"local": 2048}
ANY_CONTEXT_TOKENS, ANSWER_TOKENS = 16_000, 512
LEAST_CONTEXT_TOKENS = 128


@dataclass(frozen=True, slots=True)
class RetrievalRules:
    """What this deployment decides.

    Attributes:
        context_tokens: By answering provider, how many tokens its model reads and writes together.
        refuse_from: The risk from which a passage is left out.
        relevant_from: By embedding model, the cosine from which a passage is to the point; others have our own.
    """

    context_tokens: Mapping[str, int] = field(default_factory=dict)
    refuse_from: float = 0.8
    relevant_from: Mapping[str, float] = field(default_factory=dict)

    def room(self, provider: str, *, answer: int | None, question: str) -> int:
        """Tokens that passages may have."""
        default = DEFAULT_CONTEXT_TOKENS.get(provider, ANY_CONTEXT_TOKENS)
        window = self.context_tokens.get(provider, default)
        for_answer = min(answer or ANSWER_TOKENS, window // 2)
        return max(LEAST_CONTEXT_TOKENS, window - for_answer - FRAME_TOKENS - estimate_tokens(question))


async def retrieve_context(
    event: RetrievalRequested,
    *,
    providers: Mapping[str, EmbeddingProvider],
    vectors: VectorRepository,
    ledger: DocumentLedger,
    policy: PromptPolicy,
    now: datetime,
    rerankers: Mapping[str, CompletionProvider] = {},
    rules: RetrievalRules = RetrievalRules(),
) -> StageResult:
    """Find what fits in the user's own documents.

    Args:
        event: The query, or the question.
        providers: Those that make vectors, by name.
        vectors: Where the chunks lie.
        ledger: Which documents the user has.
        policy: How text that a model is to read is judged.
        now: The time of the call.
        rerankers: Those that can be asked for a better order.
        rules: Of this deployment.

    Returns:
        `Emit` with one event. Of a search a `JobFinished` with `{query, k, results}`. Of a question a
        `CompletionRequested` for its provider with what was found; or a `JobFinished` that says that there is nothing
        to answer from. `embedding-mismatch` where the documents' vectors are not the provider's.

    Raises:
        RetryableError, PermanentError: As the provider, the vectors and the ledger raised them.
    """
    request, user_id = event.request, event.job.user_id
    collections = await ledger.collections(user_id)
    if not collections:
        return _nothing(event, "no-documents", {}, now)
    mode: SearchMode = request.mode if isinstance(request, SearchRequest) else "hybrid"
    collection = choose_collection(event, collections, providers, mode)
    if isinstance(collection, JobError):
        return _failed(event, collection, now)
    query = request.query if isinstance(request, SearchRequest) else request.question
    vector: Sequence[float] | None = None
    if mode != "keyword":
        made = await providers[collection.provider].embed([query], purpose="query", timeout_s=event.work_s)
        vector = made.vectors[0]
        if len(vector) != collection.dimensions:
            collection = _of_length(collection, len(vector), collections)
            if isinstance(collection, JobError):
                return _failed(event, collection, now)
    wanted = min(request.top_k * CANDIDATES, max(MAX_CANDIDATES, request.top_k))
    found = distinct(
        await _seen(
            vectors, ledger, user_id, collection, query=query, vector=vector, mode=mode, limit=wanted,
            among=request.among,
        )
    )  # fmt: skip
    if isinstance(request, SearchRequest):
        return _done(event, _results(request, found), now)
    return await _answered_from(event, request, found, collection, policy, rerankers, rules, now)


async def _answered_from(
    event: RetrievalRequested, request: RagRequest, found: list[Found], collection: Collection,
    policy: PromptPolicy, rerankers: Mapping[str, CompletionProvider], rules: RetrievalRules, now: datetime,
) -> StageResult:  # fmt: skip
    meta = {"embedding": {"provider": collection.provider, "model": collection.model}}
    found = relevant(found, request.question, bounds_of(collection.model, rules.relevant_from))
    if not found:
        return _nothing(event, "nothing-relevant", meta, now)
    reranker = rerankers.get(request.rerank_provider or "")
    if reranker is not None:
        found = await rerank(
            request.question, found, provider=reranker, job_id=event.job.job_id, timeout_s=event.work_s
        )
    chosen = judged(found, most=request.top_k, policy=policy, refuse_from=rules.refuse_from)
    job = event.job.with_risk(chosen.risk)
    if not chosen.passages:
        finished = JobFinished.completed(
            job, result=nothing_found(event, request.question, "left-out", {**meta, "left_out": chosen.left_out}),
            at=now, rate_limit=event.rate_limit,
        )  # fmt: skip
        return Emit((finished,))
    answering = event.llm_provider or ""
    room = rules.room(answering, answer=request.generation_config.max_tokens, question=request.question)
    retrieved = Retrieved(
        question=request.question, passages=packed(chosen.passages, tokens=room),
        embedding_provider=collection.provider, embedding_model=collection.model, left_out=chosen.left_out,
    )  # fmt: skip
    asked = ChatRequest(
        prompt=request.question, provider=request.llm_provider, generation_config=request.generation_config,
        timeout=request.timeout,
    )  # fmt: skip
    completion = CompletionRequested(
        job=job, provider=answering, request=asked, timeout_s=event.timeout_s, rate_limit=event.rate_limit,
        retrieved=retrieved,
    )  # fmt: skip
    return Emit((completion,))


async def _seen(
    vectors: VectorRepository, ledger: DocumentLedger, user_id: str, collection: Collection, *, query: str,
    vector: Sequence[float] | None, mode: SearchMode, limit: int, among: Among | None,
) -> list[Found]:  # fmt: skip
    """What is found among the versions that are active, before the search and after it: never of two of a document.

    A version that takes another one's place meanwhile is looked for again; where that goes on, what is hidden at last
    is left out.
    """
    hidden: Sequence[UUID] = await ledger.hidden(user_id)
    found: list[Found] = []
    for _ in range(MAX_LOOKS):
        found = await vectors.search(
            user_id, collection, query=query, vector=vector, mode=mode, limit=limit, hidden=hidden, among=among
        )
        before, hidden = set(hidden), await ledger.hidden(user_id)
        if not any(one.version_id in set(hidden) - before for one in found):
            return found
    return [one for one in found if one.version_id not in set(hidden)]


def _of_length(collection: Collection, dimensions: int, collections: Sequence[Collection]) -> Collection | JobError:
    """The same model's collection of vectors of that length: it may have been served with several."""
    wanted = Collection(collection.provider, collection.model, dimensions)
    if wanted in collections:
        return wanted
    message = (
        f"your documents were embedded with {collection.provider} ({collection.model}) in {collection.dimensions} "
        f"dimensions, and it makes vectors of {dimensions} now: ingest them again"
    )
    return JobError(code=MISMATCH, message=message)


def _results(request: SearchRequest, found: Sequence[Found]) -> dict[str, Any]:
    results = [
        {
            "document": one.chunk.text, "score": score, "source": one.source, "page": one.chunk.page,
            "document_id": str(one.document_id), "chunk": one.chunk.index, "section": one.chunk.section,
        }
        for one, score in zip(found, scores_of(found), strict=True)
    ]  # fmt: skip
    return {"query": request.query, "k": request.top_k, "results": results[: request.top_k]}


def _nothing(event: RetrievalRequested, why: Why, meta: dict[str, Any], now: datetime) -> Emit:
    request = event.request
    if isinstance(request, SearchRequest):
        return _done(event, _results(request, ()), now)
    return _done(event, nothing_found(event, request.question, why, meta), now)


def _done(event: RetrievalRequested, result: dict[str, Any], now: datetime) -> Emit:
    return Emit((JobFinished.completed(event.job, result=result, at=now, rate_limit=event.rate_limit),))


def _failed(event: RetrievalRequested, error: JobError, now: datetime) -> Emit:
    return Emit((JobFinished.failed(event.job, error=error, at=now, rate_limit=event.rate_limit),))
