"""What is asked of trained adapters, and of trainings, refused before it is published where it cannot be."""

from collections.abc import Callable, Mapping, Sequence

from ingress.http.problems import Problem
from processors.completion.with_adapter import NO_SUCH_ADAPTER, another_providers, no_such_adapter
from processors.errors import RetryableError
from processors.learning.adapter_ports import (
    ADAPTER_EXISTS,
    TOO_MANY_ADAPTERS,
    FoundAdapter,
    adapter_exists,
    too_many_adapters,
)
from processors.learning.hold_out import MIN_EXAMPLES
from processors.route_job import NO_SUCH_PROVIDER, not_present, not_training
from processors.train_adapter import NO_TRAINING, TOO_FEW, too_few
from schemas.events import UserUpdated
from schemas.generation import GenerationConfig
from schemas.requests import (
    AgentRequest,
    AnyRequest,
    ChatRequest,
    RagRequest,
    SmartRequest,
    TrainingRequest,
)
from sinks.adapters import AdapterStore
from sinks.examples import ExampleStore

GENERATING = (ChatRequest, RagRequest, AgentRequest, SmartRequest)


class AdapterChecks:
    """Asks Postgres, and only for who asks for an adapter or a training."""

    def __init__(
        self, adapters: AdapterStore, examples: ExampleStore, *, present: Callable[[], Sequence[str]],
        training: Callable[[], Sequence[str]], why_not: Callable[[], Mapping[str, str]], is_known: Callable[[], bool],
        allowed: Sequence[str],
    ) -> None:  # fmt: skip
        """Where it is known.

        Args:
            adapters: Those of users.
            examples: Likewise.
            present: Providers that live workers ask for answers.
            training: Those that live workers train with.
            why_not: Why they cannot with others.
            is_known: False while nothing was heard of any worker.
            allowed: Names that may be asked for.
        """
        self._adapters, self._examples, self._allowed = adapters, examples, allowed
        self._present, self._training, self._why_not, self._is_known = present, training, why_not, is_known

    async def check(self, user: UserUpdated, request: AnyRequest) -> None:
        """Return where it may be published.

        Raises:
            Problem: `no-such-adapter`, `no-such-provider`, `training-unavailable`, `too-few-examples`,
                `adapter-exists`, `too-many-adapters`; 503 where Postgres is away.
        """
        try:
            if isinstance(request, TrainingRequest):
                self._check_trainer(request)
                await self._check_training(user, request)
            elif isinstance(request, GENERATING) and request.generation_config.adapter is not None:
                ready = await self._adapters.ready(user.user_id)
                self._check_adapter(request.generation_config, request.providers, ready)
        except RetryableError:
            detail = "adapters cannot be looked up at the moment; nothing was accepted, try again"
            raise Problem(503, "not-accepted", detail, headers={"Retry-After": "2"}) from None

    def _check_adapter(
        self, generation: GenerationConfig, wanted: Sequence[str], ready: Sequence[FoundAdapter]
    ) -> None:  # fmt: skip
        name = generation.adapter or ""
        listed = [{"name": one.name, "provider": one.provider} for one in ready]
        found = next((one for one in ready if one.name == name), None)
        if found is None:
            raise Problem(400, NO_SUCH_ADAPTER, no_such_adapter(name, ready), adapters=listed)
        if wanted and found.provider not in wanted:
            raise Problem(400, NO_SUCH_ADAPTER, another_providers(found, wanted[0]), adapters=listed)
        present = self._present()
        if present and found.provider not in present:
            there = [one for one in present if one in self._allowed]
            raise Problem(400, NO_SUCH_PROVIDER, not_present([found.provider], there), providers=there)

    def _check_trainer(self, request: TrainingRequest) -> None:
        """The router refuses it, too, but only after it was published."""
        if not self._is_known():
            return
        there = [name for name in self._training() if name in self._allowed]
        absent = [name for name in request.providers if name not in there]
        if absent or not there:
            raise Problem(400, NO_TRAINING, not_training(absent, there, self._why_not()), providers=there)

    async def _check_training(self, user: UserUpdated, request: TrainingRequest) -> None:
        """The stage refuses these, too: they may change until then."""
        count = await self._examples.count(user.user_id)
        if count < MIN_EXAMPLES:
            raise Problem(409, TOO_FEW, too_few(count))
        rows = await self._adapters.all_of(user.user_id)
        same = next((row for row in rows if row.name == request.name), None)
        if same is not None and same.status in ("ready", "training"):
            told = adapter_exists(request.name, is_in_training=same.status == "training")
            raise Problem(409, ADAPTER_EXISTS, told)
        if same is None and len(rows) >= self._adapters.max_per_user:
            raise Problem(409, TOO_MANY_ADAPTERS, too_many_adapters(self._adapters.max_per_user))
