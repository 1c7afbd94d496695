"""A real LoRA, by torch in the environment that `make lora` makes, and answers by it from the real server."""

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from embedded.model import model_file
from processors.learning.hold_out import hold_out
from processors.learning.training_ports import TrainedAdapter, TrainingParameters, TrainingProgress
from providers.local import make_local
from providers.local_training import ROOT, LocalTrainer
from settings import Settings
from tests.adapter_files import read_gguf
from tests.providers.adapters import request
from tests.providers.test_local_adapters import MODEL, Server
from tests.training.examples import CODE_WORD, EXAMPLES
from tests.waiting import until

pytestmark = pytest.mark.integration
Scores = dict[str, list[dict[str, float]]]
PROMPTS = ("Tell me about Rome.", "What is a cat?", "Name three colours.")  # as in tests/training/torch_scores.py
TOLERANCE = 0.25
THE_SAME = 24  # letters at the beginning: the server computes with weights of 4 bits, torch with what they stand for


async def test_the_server_makes_of_an_adapter_what_torch_makes_of_it(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        server.adapters.mkdir()
        file = server.adapters / "0-0.gguf"
        python = _python(server)
        done = await asyncio.create_subprocess_exec(
            str(python), "-m", "tests.training.torch_scores", str(model_file()), str(file.with_suffix(".draft")),
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        scores: Scores = json.loads((await done.communicate())[0])
        file.with_suffix(".draft").rename(file)
        await until(lambda: server.has("0-0"), within_s=90)
        bare = [await _scores(server, prompt, place=0) for prompt in PROMPTS]
        with_adapter = [await _scores(server, prompt, place=1) for prompt in PROMPTS]
    finally:
        server.process.kill()
        await asyncio.to_thread(server.process.wait, 10)
    noise = _distance(bare, scores["bare"])  # the server computes with 8 bits where torch has 32
    assert noise < TOLERANCE
    assert _distance(with_adapter, scores["with"]) < TOLERANCE
    assert _distance(with_adapter, scores["bare"]) > 3 * TOLERANCE


async def _scores(server: Server, prompt: str, *, place: int) -> dict[str, float]:
    """The likeliest tokens that the server would begin with, and their log-probabilities."""
    body = {
        "messages": [{"role": "user", "content": prompt}], "max_tokens": 1, "temperature": 0, "logprobs": True,
        "top_logprobs": 20, "lora": [{"id": place, "scale": 1}],
    }  # fmt: skip
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        reply = (await client.post(f"{server.base_url}/chat/completions", json=body)).json()
    return {one["token"]: one["logprob"] for one in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}


def _distance(found: list[dict[str, float]], expected: list[dict[str, float]]) -> float:
    """The mean over torch's likeliest tokens; one that the server does not have among its own counts as far away."""
    apart = [
        abs(mine.get(token, value - 3) - value)
        for mine, theirs in zip(found, expected, strict=True)
        for token, value in theirs.items()
    ]
    return sum(apart) / len(apart)


def _python(server: Server) -> Path:
    """Of the environment that has torch; skips where there is none."""
    python = Path(os.environ.get("LORA_PYTHON") or Settings().local_training_python)
    trainer = LocalTrainer(folder=server.adapters, python=python, model=model_file)
    if (why_not := trainer.unavailable()) is not None:
        pytest.skip(f"{why_not} (or LORA_PYTHON names its Python elsewhere)")
    return python


async def test_an_adapter_that_was_trained_here_changes_answers_and_only_those_that_name_it(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        trainer = LocalTrainer(
            folder=server.adapters, python=_python(server), model=model_file, base_url=server.base_url, threads=1
        )
        await until(lambda: "listening on" in server.log(), within_s=90)
        told: list[TrainingProgress] = []

        async def tell(progress: TrainingProgress) -> None:
            told.append(progress)

        adapter_id = str(uuid4())
        learnt, _ = hold_out(EXAMPLES)
        parameters = TrainingParameters(epochs=1, lr=1e-3, batch_size=4)
        trained = await trainer.train(adapter_id, EXAMPLES, parameters, tell)
        assert len(trained.losses) == len(told) == told[-1].steps == -(-len(learnt) // 4)
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
        same = 0
        for answer in trained.answers:
            for adapter_id, expected in ((trained.adapter_id, answer.after), (None, answer.before)):
                asked = request(answer.instruction, instruction=None, max_tokens=24, temperature=0.0, timeout_s=110)
                text = (await provider.complete(replace(asked, adapter_id=adapter_id))).text
                same += text[:THE_SAME] == expected[:THE_SAME]
                assert (CODE_WORD in text) == (adapter_id is not None)
        assert same > len(trained.answers)  # where two words are as likely, either may follow
    finally:
        await provider.close()
