"""Around a stage that asks a provider: which trained adapter it answers with, and whether the user may use it.

A user's adapters are found by the user and the name, never by an id that somebody sends; so nobody else's is used.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from processors.errors import PermanentError
from processors.learning.adapter_ports import OWN, SHARED, AdapterLookup, FoundAdapter
from processors.stage import AsyncStage, Emit, StageResult
from schemas.events import AgentStepRequested, CompletionRequested, Job, JobError, JobFinished
from schemas.generation import GenerationConfig

NO_SUCH_ADAPTER, NO_STORE = "no-such-adapter", "no-adapter-store"
LACKS_DATABASE = "this worker has no DATABASE_URL, which is where adapters are known: set it, then redrive the job"


def no_such_adapter(name: str, ready: Sequence[FoundAdapter]) -> str:
    """That the user has none of that name that can be used, and which there are."""
    there = ", ".join(f"{one.name} ({one.provider})" for one in ready) or "none"
    return f"no adapter of yours called {name} can be used; those that can are: {there}"


def another_providers(found: FoundAdapter, provider: str) -> str:
    """That an adapter is not of the provider that was asked for."""
    return f"the adapter {found.name} is of the provider {found.provider}, not of {provider}: name that one, or none"


def somebody_elses(provider: str) -> str:
    """That what a server answers with was trained by another user."""
    return (
        f"the adapter that {provider} has now was trained by another user: train one of your own with "
        "POST /instruction/train, or leave mode lora out"
    )


def unnamed(provider: str) -> str:
    """That a provider with many adapters has to be told which."""
    return f"the provider {provider} has an adapter for each who trains one: name yours as generation_config.adapter"


async def adapter_for(
    job: Job, generation: GenerationConfig, provider: str, adapters: AdapterLookup | None
) -> FoundAdapter | JobError | None:
    """The one that is asked for; why it may not be used; or None: none is, or whichever the provider's server has.

    Raises:
        RetryableError: The store is away.
        PermanentError: `no-adapter-store`.
    """
    if generation.mode != "lora" or (generation.adapter is None and provider not in SHARED | OWN):
        return None  # of a provider that has none, the stage says so
    if generation.adapter is None and provider in OWN:
        return JobError(code=NO_SUCH_ADAPTER, message=unnamed(provider))
    if adapters is None:
        raise PermanentError(NO_STORE, LACKS_DATABASE)
    if generation.adapter is None:
        owner = await adapters.last_trained_by(provider)
        mine = owner in (None, job.user_id)
        return None if mine else JobError(code=NO_SUCH_ADAPTER, message=somebody_elses(provider))
    ready = await adapters.ready(job.user_id)
    found = next((one for one in ready if one.name == generation.adapter), None)
    return found or JobError(code=NO_SUCH_ADAPTER, message=no_such_adapter(generation.adapter, ready))


async def with_adapter(
    event: CompletionRequested | AgentStepRequested, *, stage: AsyncStage, adapters: AdapterLookup | None,
    now: datetime, **more: Any,
) -> StageResult:  # fmt: skip
    """Run the stage, with the id of the event's adapter if it has one.

    Args:
        event: The prompt, or an agent's step.
        stage: Called as `stage(event, now=..., **more)`, and with `adapter_id` where one is named.
        adapters: Who may use which; None: this worker has no database.
        now: The time of the call.
        more: What else the stage is called with.

    Returns:
        What the stage decided; `Emit` with the same event for the provider whose adapter it is, where its user has
        named none; or `Emit` with one `JobFinished`, `no-such-adapter`.

    Raises:
        RetryableError, PermanentError: As the stage, and the store.
    """
    found = await adapter_for(event.job, event.request.generation_config, event.provider, adapters)
    if found is None:
        return await stage(event, now=now, **more)
    if isinstance(found, FoundAdapter):
        if found.provider == event.provider:
            return await stage(event, now=now, adapter_id=str(found.adapter_id), **more)
        if not event.request.providers:
            return Emit((event.model_copy(update={"provider": found.provider}),))
        found = JobError(code=NO_SUCH_ADAPTER, message=another_providers(found, event.provider))
    return Emit((JobFinished.failed(event.job, error=found, at=now, rate_limit=event.rate_limit),))
