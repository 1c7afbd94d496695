"""The embedded model: llama.cpp's server, with OpenAI's API. Source: llama.cpp, tools/server/README.md."""

from providers.openai_compatible import Dialect, OpenAICompatibleProvider, make_client

NAME = "local"
DIALECT = Dialect(
    {
        "temperature": "temperature", "top_p": "top_p", "max_tokens": "max_tokens", "top_k": "top_k", "seed": "seed",
        "stop": "stop", "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
        "repetition_penalty": "repeat_penalty",
    }
)  # fmt: skip


def make_local(*, base_url: str, model: str, connections: int) -> OpenAICompatibleProvider:
    """The adapter. It needs no key, and no proxy of the environment is asked."""
    client = make_client(base_url=base_url, api_key="none", connections=connections, trust_env=False)
    return OpenAICompatibleProvider(client, name=NAME, model=model, dialect=DIALECT)
