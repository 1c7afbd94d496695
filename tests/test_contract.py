"""Names, paths and defaults that clients, operators and scripts were told of; what they do is tested where it is done.

A change here breaks somebody: it wants a major version, not another expectation.
"""

from typing import Any

import pytest
import typer

from cli import app as command_line
from embedded.commands import as_public
from embedded.home import PartState, Status
from ingress.app import create_app
from ingress.chat import status_of
from ingress.http.openapi import document
from processors.agents.history import MAX_WHOLE_STEPS
from processors.plan_agent_step import MAX_IDENTICAL
from processors.run_tool import TOOL_TIMEOUT_S
from processors.tools.registry import Tools
from schemas.events import JobCancelRequested
from schemas.generation import GenerationConfig
from schemas.requests import REQUESTS
from settings import ALLOWED, Settings
from tests.conftest import SECRET

DEFAULTS: dict[str, Any] = {
    "RATE_LIMIT_USER_REQUESTS": 5, "RATE_LIMIT_ADMIN_REQUESTS": 10, "RATE_LIMIT_WINDOW": 60, "INGRESS_PORT": 8000,
    "MAX_EMBED_CHUNKS": 60, "MAX_EMBED_TOKENS": 40_000, "MAX_CHUNK_TOKENS": 512, "LLM_TIMEOUT": 30, "MAX_RETRIES": 3,
    "MAX_PROMPT_LENGTH": 20_000, "MAX_RESPONSE_LENGTH": 20_000, "PUBLIC_DOCS": True, "PUBLIC_METRICS": True,
    "OPENAI_MODEL": "gpt-4o-mini", "OPENAI_EMBEDDING_MODEL": "text-embedding-3-small",
    "GEMINI_MODEL": "gemini-3-flash-preview", "GEMINI_EMBEDDING_MODEL": "gemini-embedding-001",
    "OLLAMA_MODEL": "mistral:7b-instruct-q4_K_M", "VAULT_MOUNT": "secret", "VAULT_PATH": "ai-assistant-api",
    "DEFAULT_PROVIDER": None, "EMBEDDING_PROVIDER": None, "QDRANT_URL": None, "VAULT_ADDR": None, "DEBUG_MODE": False,
    "TOKENS_PER_MINUTE_PER_USER": None, "MAX_IN_FLIGHT_PER_USER": None, "MAX_PENDING_JOBS_PER_USER": None,
}  # fmt: skip
NAMES = {
    "DATABASE_URL", "DB_HOST", "DB_USER", "DB_PASS", "DB_NAME", "JWT_SECRET_KEY", "VAULT_TOKEN",
    "KAFKA_BOOTSTRAP_SERVERS", "OPENAI_API_KEY", "OPENAI_BASE_URL", "GEMINI_API_KEY", "GEMINI_BASE_URL",
    "OLLAMA_BASE_URL", "QWEN3_VL_BASE_URL", "QWEN_TTS_BASE_URL", "TTS_API_URL", "LMSTUDIO_BASE_URL",
    "LMSTUDIO_API_KEY", "ALLOWED_PROVIDERS", "FORBIDDEN_COMMANDS", "INSTRUCTION_PATTERNS", "EXFILTRATION_PATTERNS",
    "FORBIDDEN_LLM_OUTPUT", "INSTRUCTION_REGEX", "ROLE_OVERRIDE_REGEX", "META_SYSTEM_REGEX", "ROOT_USR_PASS",
}  # fmt: skip

NOT_TOLD = object()  # there is a default, and which one is ours to choose
# What a body has to have at least, each with its default; `...`: it has to be said.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/auth/login"): {"user_id": ..., "password": ...},
    ("post", "/auth/register"): {"user_id": ..., "password": ..., "role": "user"},
    ("post", "/chat/"): {
        "prompt": ..., "provider": None, "instruction": None, "generation_config": NOT_TOLD, "timeout": None,
        "image": None,
    },
    ("post", "/chat/async"): {"prompt": ..., "callback_url": None},
    ("post", "/chat/rag"): {"question": ..., "embedding_provider": None, "llm_provider": None, "top_k": 5},
    ("post", "/chat/rag/async"): {"question": ..., "top_k": 5, "callback_url": None},
    ("post", "/chat/smart/run"): {"query": None, "provider": None, "generation_config": None, "agent_id": None},
    ("post", "/agents/run"): {
        "goal": ..., "agent_id": ..., "agent_type": "react", "max_steps": 3, "provider": None,
        "generation_config": NOT_TOLD, "timeout": None, "callback_url": None,
    },
    ("post", "/inference/"): {"prompt": ..., "model": None, "temperature": 0.7, "callback_url": None},
    ("post", "/tts/"): {"prompt": ..., "speaker": "Vivian", "language": "Auto", "instruct": None},
    ("post", "/instruction/smart/add"): {"instruction": ..., "input": NOT_TOLD, "output": ...},
    ("post", "/instruction/train"): {
        "name": ..., "epochs": NOT_TOLD, "lr": NOT_TOLD, "batch_size": NOT_TOLD,
    },
    ("post", "/admin/dlq/redrive"): {"job_id": None, "code": None, "stage": None, "from": None, "to": None},
    ("post", "/api-keys"): {"name": ...},
    ("patch", "/users/{user_id}"): {"disabled": NOT_TOLD, "password": NOT_TOLD, "role": NOT_TOLD},
}  # fmt: skip
QUERIES: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/embeddings/search"): {"query": None, "top_k": 3, "provider": None},
    ("get", "/search/"): {"q": None, "k": 5},
    ("post", "/ingestion/ingest"): {"source": None},
    ("post", "/chat/smart/run"): {"query": None, "provider": None, "generation_config": None, "agent_id": None},
}
OTHER_CALLS = {
    ("get", "/inference/{job_id}"), ("get", "/agents/{job_id}"), ("get", "/agents/tools"), ("get", "/lmstudio/models/"),
    ("get", "/instruction/examples"), ("get", "/instruction/adapters"), ("get", "/documents"),
    ("delete", "/documents/{document_id}"), ("delete", "/jobs/{job_id}"), ("get", "/jobs"), ("get", "/jobs/{job_id}"),
    ("get", "/health"), ("get", "/livez"), ("get", "/readyz"), ("get", "/metrics"), ("get", "/webhook-secret"),
    ("get", "/jobs/{job_id}/webhooks"), ("post", "/jobs/{job_id}/webhooks/redeliver"), ("get", "/admin/dlq"),
    ("get", "/v1/models"), ("post", "/jobs/{job_id}/cancel"), ("get", "/jobs/{job_id}/stream"),
}  # fmt: skip
OPEN = {"/auth/login", "/health", "/livez", "/readyz", "/metrics"}
COMMANDS = {"up", "down", "status", "dlq list", "dlq show", "dlq redrive", "setup", "ingress", "worker"}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """The OpenAPI document of an ingress that is not started."""
    return document(
        create_app(
            Settings(
                _env_file=None, kafka_bootstrap_servers="127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x",
                jwt_secret_key=SECRET,
            )
        )
    )  # fmt: skip


def test_settings_have_the_names_and_defaults_that_people_know() -> None:
    fields = Settings.model_fields
    assert {name for name in NAMES if name.lower() not in fields} == set()
    assert {name: fields[name.lower()].default for name in DEFAULTS} == DEFAULTS
    assert set(ALLOWED) == {"openai", "gemini", "ollama", "lmstudio", "qwen3vl", "qwen-tts", "local"}


@pytest.mark.parametrize("call", BODIES, ids=" ".join)
def test_a_body_takes_what_clients_send(described: dict[str, Any], call: tuple[str, str]) -> None:
    method, path = call
    content = described["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    schema = described["components"]["schemas"][content["$ref"].rpartition("/")[2]]
    wanted = BODIES[call]
    assert wanted.keys() <= schema["properties"].keys()
    assert set(schema.get("required", ())) == {name for name, default in wanted.items() if default is ...}
    known = {name: default for name, default in wanted.items() if default not in (..., NOT_TOLD)}
    assert {name: schema["properties"][name].get("default") for name in known} == known


@pytest.mark.parametrize("call", QUERIES, ids=" ".join)
def test_a_query_takes_what_clients_send(described: dict[str, Any], call: tuple[str, str]) -> None:
    method, path = call
    parameters = {one["name"]: one["schema"] for one in described["paths"][path][method]["parameters"]}
    assert {name: parameters[name].get("default") for name in QUERIES[call]} == QUERIES[call]


def test_every_call_is_there_and_all_but_a_few_need_a_token(described: dict[str, Any]) -> None:
    paths = described["paths"]
    for method, path in {*OTHER_CALLS, *BODIES, *QUERIES}:
        assert method in paths[path], f"{method} {path}"
        assert ("security" in paths[path][method]) == (path not in OPEN), path


def test_generation_parameters_have_their_ranges() -> None:
    def bounds(name: str) -> list[float]:
        number = GenerationConfig.model_json_schema()["properties"][name]["anyOf"][0]
        return [number["minimum"], number["maximum"]]

    assert {name: bounds(name) for name in ("temperature", "top_p", "max_tokens")} == {
        "temperature": [0, 2], "top_p": [0, 1], "max_tokens": [1, 8192],
    }  # fmt: skip
    chat, agent = (REQUESTS[kind].model_json_schema()["properties"] for kind in ("chat", "agent"))
    assert [chat["prompt"]["minLength"], chat["prompt"]["maxLength"]] == [1, 20_000]
    assert chat["instruction"]["anyOf"][0]["maxLength"] == 5_000
    timeout = chat["timeout"]["anyOf"][0]
    assert [timeout["minimum"], timeout["maximum"]] == [1, 120]
    assert [agent["max_steps"]["minimum"], agent["max_steps"]["maximum"]] == [1, 20]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("timeout", 504), ("provider-unreachable", 503), ("breaker-open", 503), ("provider-http-429", 503),
        ("provider-http-401", 502), ("provider-http-500", 502), ("provider-invalid-reply", 502),
        ("empty-completion", 502), ("unexpected-error", 500), ("crashed-worker", 500), ("no-such-provider", 400),
        ("rate-limited", 429),
    ],
)  # fmt: skip
def test_a_waiting_call_says_who_was_at_fault(code: str, status: int) -> None:
    assert status_of(code) == status


def test_a_request_to_cancel_is_a_job_and_its_user() -> None:
    assert JobCancelRequested.model_fields.keys() == {"job_id", "user_id"}


def test_agents_are_bounded_as_was_said() -> None:
    assert (TOOL_TIMEOUT_S, MAX_IDENTICAL, MAX_WHOLE_STEPS) == (5, 3, 6)
    assert {"summary", "finish"} <= set(Tools().names)
    assert all(tool.keys() >= {"name", "description", "input_schema"} for tool in Tools().described)


def test_every_command_is_there() -> None:
    commands: dict[str, Any] = vars(typer.main.get_command(command_line))["commands"]
    for words in COMMANDS:
        first, _, second = words.partition(" ")
        assert first in commands, words
        assert not second or second in commands[first].commands, words
    redrive = {name for one in commands["dlq"].commands["redrive"].params for name in one.opts}
    assert {"--job", "--code", "--stage"} <= redrive
    assert "--json" in {name for one in commands["status"].params for name in one.opts}


def test_what_runs_is_told_in_the_shape_that_scripts_read() -> None:
    parts = [PartState("kafka", "ready", pid=1), PartState("ingress", "ready", pid=2, http="http://h:1", restarts=3)]
    told = as_public(Status(1, 0.0, True, "http://h:1", "h:2", "postgresql://h/d", parts=parts))
    assert told.keys() == {"ready", "ingress", "kafka", "postgres", "processes"}
    assert told["processes"][0].items() >= {"name": "kafka", "pid": 1, "restarts": 0}.items()
    assert "http" not in told["processes"][0]
    assert told["processes"][1].items() >= {"http": "http://h:1", "restarts": 3}.items()
    assert as_public(None).keys() == told.keys()
