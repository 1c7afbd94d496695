"""A real LoRA, by torch in the environment that `make lora` makes, and answers by it from the real server."""

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from embedded.model import model_file
from processors.hold_out import hold_out
from processors.training_ports import TrainedAdapter, TrainingParameters, TrainingProgress
from providers.local import make_local
from providers.local_training import LocalTrainer
from settings import Settings
from tests.adapter_files import read_gguf
from tests.providers.adapters import request
from tests.providers.test_local_adapters import MODEL, Server
from tests.training.examples import CODE_WORD, EXAMPLES
from tests.waiting import until

pytestmark = pytest.mark.integration
THE_SAME = 24  # letters at the beginning: the server computes with weights of 4 bits, torch with what they stand for


async def test_an_adapter_that_was_trained_here_changes_answers_and_only_those_that_name_it(tmp_path: Path) -> None:
    python = Settings().local_training_python
    server = Server(tmp_path)
    try:
        trainer = LocalTrainer(
            folder=server.adapters, python=python, model=model_file, base_url=server.base_url, threads=1
        )
        if (why_not := trainer.unavailable()) is not None:
            pytest.skip(f"{why_not} (or LOCAL_TRAINING_PYTHON names it elsewhere)")
        await until(lambda: "listening on" in server.log(), within_s=90)
        told: list[TrainingProgress] = []

        async def tell(progress: TrainingProgress) -> None:
            told.append(progress)

        adapter_id = str(uuid4())
        learnt, _ = hold_out(EXAMPLES)
        parameters = TrainingParameters(epochs=1, lr=1e-3, batch_size=4)
        trained = await trainer.train(adapter_id, EXAMPLES, parameters, tell)
        assert len(trained.losses) == len(told) == told[-1].steps == len(learnt) // 4
        _is_better(trained)
        said, shapes = read_gguf(server.adapters / f"{adapter_id}.gguf")
        assert (said["general.type"], said["adapter.type"], said["adapter.lora.alpha"]) == ("adapter", "lora", 16)
        assert len(shapes) == 30 * 7 * 2
        assert shapes["blk.0.attn_k.weight.lora_b"] == (192, 8)
        await _server_says_what_torch_says(server, trained)
    finally:
        server.process.kill()
        await asyncio.to_thread(server.process.wait, 10)


def _is_better(trained: TrainedAdapter) -> None:
    before, after = trained.held_out_loss_before, trained.held_out_loss_after
    assert before is not None
    assert after is not None
    assert after < before / 2
    assert not any(CODE_WORD in answer.before for answer in trained.answers)
    assert all(CODE_WORD in answer.after for answer in trained.answers)


async def _server_says_what_torch_says(server: Server, trained: TrainedAdapter) -> None:
    provider = make_local(
        base_url=server.base_url, model=MODEL, embedding_url=None, embedding_model="", connections=2, adapters=True
    )
    try:
        for answer in trained.answers[:2]:
            for adapter_id, expected in ((trained.adapter_id, answer.after), (None, answer.before)):
                asked = request(answer.instruction, instruction=None, max_tokens=32, temperature=0.0, timeout_s=110)
                text = (await provider.complete(replace(asked, adapter_id=adapter_id))).text
                assert text[:THE_SAME] == expected[:THE_SAME]
                assert (CODE_WORD in text) == (adapter_id is not None)
    finally:
        await provider.close()
