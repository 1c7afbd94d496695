"""How long the embedded voice takes for 200 characters: `python -m bench.speech`.

From a text to the whole file, whose header has its length: the stage, its adapter, and Piper in its process. The first
text has its voice loaded; what Kafka and the ingress add is that of any other job.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
from hashlib import sha256
from time import perf_counter
from uuid import uuid4

from bench.cpu import Cpu
from embedded.ports import free_port
from embedded.speech import speech_part
from processors.generate_speech import generate_speech
from processors.speech.join_audio import read_wav
from processors.speech.speech_ports import KeptAudio
from processors.stage import Emit
from providers.qwen_tts import LOCAL, make_qwen_tts
from schemas.events import Job, JobFinished, SpeechRequested
from schemas.requests import SpeechRequest
from tests.factories import NOW, job

TEXT = (
    "The sky is blue because air scatters blue light more than red light. At sunset the light comes a long way "
    "through the air. Then most of the blue is gone before it reaches us, and the sky looks red."
)
START_S = 60.0


class Kept:
    """`AudioStore` that keeps nothing but facts."""

    async def find(self, job: Job) -> KeptAudio | None:  # noqa: ARG002 nothing is found
        """See `AudioStore.find`."""
        return None

    async def keep(self, job: Job, wav: bytes) -> KeptAudio:  # noqa: ARG002 whoever it is
        """See `AudioStore.keep`."""
        return KeptAudio(uuid4(), len(wav), sha256(wav).hexdigest(), read_wav(wav).seconds)


async def measure(texts: int) -> None:
    """Print a line for the first text, and one for the others."""
    part, url = speech_part(port=free_port())
    process = subprocess.Popen(part.argv, env=dict(os.environ), cwd=part.cwd)  # noqa: ASYNC220 nothing else runs yet
    provider = make_qwen_tts(base_url=url, connections=4, name=LOCAL)
    try:
        async with asyncio.timeout(START_S):
            while not await part.healthy():
                await asyncio.sleep(0.1)
        seconds, cpus, audio_s = [], [], 0.0
        for _ in range(1 + texts):
            cpu, began = Cpu({"voice": [process.pid]}), perf_counter()
            event = SpeechRequested(
                job=job(kind="speech"), provider=LOCAL, request=SpeechRequest(prompt=TEXT), timeout_s=120
            )
            result = await generate_speech(event, providers={LOCAL: provider}, audio=Kept(), max_chars=5000, now=NOW)
            seconds.append(perf_counter() - began)
            cpus.append(cpu.since(1)["voice"] / 1000)
            assert isinstance(result, Emit)
            (finished,) = result.events
            assert isinstance(finished, JobFinished)
            assert finished.result is not None, finished.error
            audio_s = finished.result["audio"]["seconds"]
        print(f"{len(TEXT)} characters, {audio_s:.1f} s of audio")
        print(f"first text, voice loaded: {seconds[0]:.2f} s, {cpus[0]:.2f} s of CPU")
        print(
            f"later texts: {statistics.median(seconds[1:]):.2f} s, {statistics.median(cpus[1:]):.2f} s of CPU (median)"
        )
    finally:
        await provider.close()
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.speech")
    parser.add_argument("--texts", type=int, default=5)
    asyncio.run(measure(parser.parse_args().texts))
