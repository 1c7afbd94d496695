"""Which of a user's collections a question is put to: the one whose vectors its provider's go together with."""

from collections.abc import Mapping, Sequence

from processors.documents.document_ports import Collection
from processors.ports import EmbeddingProvider
from schemas.events import JobError, RetrievalRequested
from schemas.requests import SearchMode

MISMATCH = "embedding-mismatch"


def choose_collection(
    event: RetrievalRequested,
    collections: Sequence[Collection],
    providers: Mapping[str, EmbeddingProvider],
    mode: SearchMode,
) -> Collection | JobError:
    """Where to look.

    A provider that the user has named is taken at its word; else it is the default one where documents of the user's
    lie, and the one where they lie where none does. By keywords alone no vector is made, so nobody need be there.

    Args:
        event: The question.
        collections: Those in which the user has documents; at least one.
        providers: Those that make vectors here, by name.
        mode: How it is searched.
    """

    def fits(collection: Collection) -> bool:
        provider = providers.get(collection.provider)
        return mode == "keyword" or (provider is not None and provider.embedding_model == collection.model)

    ordered = sorted(collections, key=lambda one: (one.provider, one.model, one.dimensions))
    wanted = [one for one in ordered if one.provider == event.provider]
    candidates = wanted if event.provider_is_named else [*wanted, *(one for one in ordered if one not in wanted)]
    found = next(filter(fits, candidates), None)
    return found if found is not None else JobError(code=MISMATCH, message=_mismatch(event, collections, providers))


def _mismatch(
    event: RetrievalRequested, collections: Sequence[Collection], providers: Mapping[str, EmbeddingProvider]
) -> str:
    """Who made the vectors that there are, and what to do."""
    told = ", ".join(dict.fromkeys(f"{one.provider} ({one.model})" for one in collections))
    made = f"your documents were embedded with {told}"
    usable = [
        one.provider for one in collections
        if (there := providers.get(one.provider)) is not None and there.embedding_model == one.model
    ]  # fmt: skip
    if event.provider_is_named:
        asked = providers.get(event.provider)
        model = f" ({asked.embedding_model})" if asked is not None else ""
        ways = [f"ingest them again with {event.provider}"] if asked is not None else []
        if usable:
            ways.insert(0, f"ask with {usable[0]}, or name no provider")
        todo = "; or ".join(ways) or "ingest them again with a provider that is present"
        return f"{made}, and not with {event.provider}{model}: {todo}"
    present = ", ".join(f"{name} ({one.embedding_model})" for name, one in providers.items()) or "none"
    return f"{made}, which is not present now; present are: {present}. Ingest them again with one of these"
