"""Asks each provider for its models once a minute: what it has, and whether it is well."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from processors.errors import PermanentError, RetryableError
from processors.ports import CompletionProvider
from schemas.events import MAX_OFFERED_MODELS, ProviderOffer
from streams.breaker import State

logger = logging.getLogger(__name__)

PERIOD_S = 60.0
WITHIN_S = 5.0
MAX_NAME_CHARS = 100  # as many as these ride in every heartbeat
TIMED_OUT = "timeout"


class ProviderWatch:
    """Keeps what a worker offers up to date."""

    def __init__(
        self,
        providers: Mapping[str, CompletionProvider],
        *,
        breaker_of: Callable[[str], State] | None = None,
        within_s: float = WITHIN_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`breaker_of`: state of a provider's breaker; `within_s`: for an answer; `sleep`: between two rounds."""
        self._breaker_of = breaker_of
        self._providers, self._within_s, self._sleep = providers, within_s, sleep
        self._offers = {name: _offer(provider) for name, provider in providers.items()}

    def offers(self) -> tuple[ProviderOffer, ...]:
        """Of all providers; `healthy` is None until the first has been asked."""
        if self._breaker_of is None:
            return tuple(self._offers.values())
        return tuple(
            offer.model_copy(update={"breaker": self._breaker_of(name)}) for name, offer in self._offers.items()
        )

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.gather(*(self._look(name) for name in self._providers))
            await self._sleep(PERIOD_S)

    async def _look(self, name: str) -> None:
        provider = self._providers[name]
        code: str | None = None
        models: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(self._within_s):
                models = await provider.models()
        except (RetryableError, PermanentError) as error:
            code = error.code
        except TimeoutError:
            code = TIMED_OUT
        except Exception:  # a bug in an adapter ends neither the worker nor the watch over the others
            logger.exception("a provider could not be asked for its models", extra={"target": name})
            code = "unexpected-error"
        before = self._offers[name]
        if code != before.code and (code or before.healthy is not None):
            logger.warning("the provider %s is %s", name, f"not well: {code}" if code else "well again")
        told = tuple(model[:MAX_NAME_CHARS] for model in models[:MAX_OFFERED_MODELS])
        self._offers[name] = before.model_copy(update={
            "models": _with_default(provider, told) if code is None else before.models,
            "healthy": code is None, "code": code, "checked_at": datetime.now(UTC),
        })  # fmt: skip


def _offer(provider: CompletionProvider) -> ProviderOffer:
    has = provider.capabilities
    can = {"stream": has.streams, "images": has.max_images > 0, "embeddings": has.embeds}
    return ProviderOffer(
        name=provider.name,
        models=_with_default(provider, ()),
        default_model=provider.model or None,
        can=tuple(name for name, there in can.items() if there),
        parameters=tuple(sorted(has.parameters)),
        embedding_model=getattr(provider, "embedding_model", None) if has.embeds else None,
    )


def _with_default(provider: CompletionProvider, models: tuple[str, ...]) -> tuple[str, ...]:
    """The one that is asked stands first, also where the list was cut before it."""
    if not provider.model:
        return models
    return (provider.model, *(model for model in models if model != provider.model))
