"""One whole answer of a provider, within its guard, for stages that tell nobody how it comes."""

from typing import Self

from processors.errors import RetryableError
from processors.ports import Completion, CompletionProvider, CompletionRequest, Guard
from schemas.events import StreamedRange


class _Untold:
    """An execution of which nobody hears before its end."""

    has_begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    async def tell(self, text: str) -> None:  # noqa: ARG002 nobody listens
        return None

    async def end(self, text: str) -> StreamedRange | None:  # noqa: ARG002 as above
        return None


async def ask(provider: CompletionProvider, request: CompletionRequest, *, guard: Guard, most_s: float) -> Completion:
    """Its answer.

    Raises:
        RetryableError, PermanentError: As the provider and its guard raised them, or `provider-http-429` where its
            pace leaves no place for the call within `most_s`.
    """
    turn = getattr(guard, "turn", None)
    if turn is not None and not await turn(most_s):
        raise RetryableError("provider-http-429", f"{provider.name} has no place for another call now")
    with guard.calling(_Untold()):
        return await provider.complete(request)
