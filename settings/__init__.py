"""Every setting of every process, with its default; `.env.example` lists them for people.

Read only by the composition roots (`ingress.app`, `streams.worker`, `cli`); values travel on as arguments.
"""

import logging
import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import quote

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from settings.values import (
    PROVIDERS as PROVIDERS,
)
from settings.values import (
    Address,
    ApiKey,
    Hosts,
    Origins,
    Ports,
    StrongSecret,
    Words,
    WordsOrNone,
    as_list,
    as_object,
    by_provider,
)
from transport.kafka_security import KafkaSecurity, Mechanism, Protocol

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parent.parent
ALLOWED = (*PROVIDERS[:-1], "qwen-tts", PROVIDERS[-1])  # with the one that only speaks
FalloverClass = Literal["unreachable", "http-429", "http-5xx", "timeout", "context-too-long", "filtered"]
ROLES = ("gate", "completion", "speech", "retrieval", "agent", "ingestion", "training", "sink")
# Settings that people may have in their `.env` from elsewhere and that mean nothing here.
UNUSED_PREFIXES = ("REDIS_", "CELERY_")
# Where there is none, compose files hand on an empty one.
NONE_WHERE_EMPTY = (
    "jwt_secret_key_previous", "database_url", "openai_api_key", "gemini_api_key", "lmstudio_api_key",
    "ollama_base_url", "lmstudio_base_url", "lmstudio_model", "qwen3_vl_base_url", "local_base_url",
    "kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password", "kafka_sasl_oauth_token_url",
    "kafka_sasl_oauth_client_id", "kafka_sasl_oauth_client_secret", "kafka_sasl_oauth_scope", "kafka_ssl_cafile",
    "kafka_ssl_certfile", "kafka_ssl_keyfile", "kafka_ssl_key_password", "vault_addr", "vault_token", "vault_role_id",
    "vault_secret_id", "vault_kubernetes_role", "vault_namespace", "vault_cacert", "tokens_per_minute_per_user",
    "max_in_flight_per_user", "max_pending_jobs_per_user", "max_stream_listeners_per_user",
    "prompt_classifier_url", "embedding_provider", "qdrant_url", "qdrant_api_key", "qdrant_cacert", "qdrant_path",
    "local_embedding_url", "qwen_tts_base_url", "tts_api_url", "local_speech_url", "agent_max_cost",
    "local_adapters_path",
)  # fmt: skip
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Environment variables (and `.env`) by the field's name in capitals, then what Vault has; else the default here.

    Raises:
        VaultStoreError: `VAULT_ADDR` is set, and Vault gives nothing.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    # --- where the parts are; one that is not named is started by `assistant up` ---
    kafka_bootstrap_servers: str | None = None
    kafka_topic_prefix: str = Field("", pattern=r"^[a-zA-Z0-9._-]*$")
    kafka_security_protocol: Protocol = "PLAINTEXT"
    kafka_sasl_mechanism: Mechanism | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_sasl_oauth_token_url: str | None = None
    kafka_sasl_oauth_client_id: str | None = None
    kafka_sasl_oauth_client_secret: SecretStr | None = None
    kafka_sasl_oauth_scope: str | None = None
    kafka_ssl_cafile: Path | None = None
    kafka_ssl_certfile: Path | None = None
    kafka_ssl_keyfile: Path | None = None
    kafka_ssl_key_password: SecretStr | None = None
    kafka_allow_plaintext_sasl: bool = False
    production: bool = False
    database_url: SecretStr | None = None
    db_host: str | None = None
    db_user: str = "postgres"
    db_pass: SecretStr = SecretStr("")
    db_name: str = "postgres"
    qdrant_url: Address | None = None
    qdrant_api_key: ApiKey = None
    qdrant_cacert: Path | None = None
    qdrant_path: Path | None = None

    # --- providers; one without its key or address is absent ---
    allowed_providers: Words = ALLOWED
    default_provider: str | None = None
    embedding_provider: str | None = None
    openai_api_key: ApiKey = None
    openai_base_url: Address = "https://api.openai.com/v1"
    openai_model: str = "gpt-4o-mini"
    openai_embedding_model: str = "text-embedding-3-small"
    gemini_api_key: ApiKey = None
    gemini_base_url: Address = "https://generativelanguage.googleapis.com"
    gemini_model: str = "gemini-3-flash-preview"
    gemini_embedding_model: str = "gemini-embedding-001"
    ollama_base_url: Address | None = None
    ollama_model: str = "mistral:7b-instruct-q4_K_M"
    ollama_embedding_model: str = "nomic-embed-text"
    lmstudio_base_url: Address | None = None
    lmstudio_api_key: ApiKey = None
    lmstudio_model: str | None = None
    lmstudio_embedding_model: str = "text-embedding-nomic-embed-text-v1.5"
    qwen3_vl_base_url: Address | None = None
    qwen_tts_base_url: Address | None = None
    tts_api_url: Address | None = None
    local_base_url: Address | None = None
    local_model: str = "SmolLM2-135M-Instruct"
    local_slots: int = Field(4, ge=1, le=64)
    local_embedding_url: Address | None = None
    local_embedding_model: str = "multilingual-e5-small"
    local_speech_url: Address | None = None
    local_adapters_path: Path | None = None
    local_training_python: Path = ROOT / ".venv-lora" / "bin" / "python"
    max_local_adapters: int = Field(16, ge=1, le=64)
    llm_timeout: float = Field(30, ge=1, le=120)
    max_retries: int = Field(3, ge=0, le=10)
    retry_long_first_s: float = Field(30, ge=0.1, le=300)
    completion_concurrency: int = Field(512, ge=1, le=4096)
    speech_concurrency: int = Field(2, ge=1, le=64)
    provider_concurrency: Annotated[
        dict[str, Annotated[int, Field(ge=1, le=4096)]], NoDecode, BeforeValidator(by_provider)
    ] = {}
    provider_requests_per_minute: Annotated[
        dict[str, Annotated[float, Field(gt=0, le=10_000_000)]], NoDecode, BeforeValidator(by_provider)
    ] = {}
    fallover_on: Annotated[tuple[FalloverClass, ...], NoDecode, BeforeValidator(as_list)] = get_args(FalloverClass)
    fallover_time_share: float = Field(0.5, ge=0.1, le=0.9)
    breaker_failures: int = Field(10, ge=1, le=1_000_000)
    breaker_after_s: float = Field(10, ge=0, le=3600)
    breaker_cool_down_s: float = Field(15, ge=0.1, le=3600)

    # --- who may, what may, how much ---
    jwt_secret_key: StrongSecret = None
    jwt_secret_key_previous: StrongSecret = None
    jwt_expires_min: int = Field(60, ge=1, le=1440)
    event_token_required: bool = False
    root_usr_pass: SecretStr | None = None
    login_failures_per_min: int = Field(10, ge=1, le=1000)
    login_failures_kept_days: int = Field(30, ge=1, le=3650)
    rate_limit_user_requests: int = Field(5, ge=0)
    rate_limit_admin_requests: int = Field(10, ge=0)
    rate_limit_window: int = Field(60, ge=1, le=86_400)
    tokens_per_minute_per_user: int | None = Field(None, ge=0)
    max_in_flight_per_user: int | None = Field(None, ge=0)
    max_pending_jobs_per_user: int | None = Field(None, ge=0)
    quarantine_after: int = Field(10, ge=0, le=1000)
    quarantine_window_s: int = Field(600, ge=1, le=86_400)
    quarantine_s: int = Field(3600, ge=0, le=31_536_000)
    quarantine_admins: bool = False
    incident_ttl_days: int = Field(90, ge=1, le=3650)
    max_prompt_length: int = Field(20_000, ge=1, le=20_000)
    max_speech_chars: int = Field(5_000, ge=1, le=20_000)
    max_response_length: int = Field(20_000, ge=1, le=200_000)
    forbidden_commands: WordsOrNone = None
    instruction_patterns: WordsOrNone = None
    exfiltration_patterns: WordsOrNone = None
    instruction_regex: str | None = None
    role_override_regex: str | None = None
    meta_system_regex: str | None = None
    risk_flag_from: float = Field(0.3, ge=0.01, le=1.01)
    risk_refuse_from: float = Field(0.5, ge=0.01, le=1.01)
    prompt_classifier_url: Address | None = None
    prompt_classifier_timeout_s: float = Field(1, ge=0.01, le=10)
    prompt_classifier_failure: Literal["pass", "refuse"] = "pass"
    forbidden_llm_output: Words = ()
    leaked_instruction_share: float = Field(0.6, ge=0, le=1)

    # --- ingress ---
    ingress_host: str = "127.0.0.1"
    ingress_port: int = Field(8000, ge=0, le=65_535)
    max_body_bytes: int = Field(1_000_000, ge=1024)
    max_head_bytes: int = Field(16_384, ge=1024, le=1_048_576)
    head_timeout_s: float = Field(10, ge=0.1, le=600)
    body_timeout_s: float = Field(60, ge=0.1, le=3600)
    max_json_depth: int = Field(64, ge=8, le=200)
    max_json_values: int = Field(5_000, ge=100, le=100_000)
    max_form_fields: int = Field(20, ge=1, le=1000)
    max_form_field_bytes: int = Field(131_072, ge=1024, le=1_000_000)
    max_requests_under_way: int = Field(10_000, ge=1, le=1_000_000)
    max_page_size: int = Field(100, ge=1, le=100)
    admission_wait_ms: int = Field(100, ge=0, le=5000)
    publish_timeout_s: float = Field(20, ge=1)
    expires_after_s: int = Field(3600, ge=1, le=86_400)
    max_queue_wait_s: float = Field(300, ge=1)
    max_stream_listeners: int = Field(2000, ge=1)
    max_stream_listeners_per_user: int | None = Field(None, ge=0)
    stream_buffer_bytes: int = Field(67_108_864, ge=1)
    stream_job_buffer_bytes: int = Field(1_048_576, ge=1)
    stream_past_readers: int = Field(4, ge=1, le=64)
    compare_in_flight: int = Field(8, ge=1, le=64)
    max_comparisons_per_user: int = Field(3, ge=1, le=100)
    max_examples_per_user: int = Field(10_000, ge=0, le=100_000)
    max_payload_bytes_per_user: int = Field(1_000_000_000, ge=0)
    prices_per_million_tokens: Annotated[
        dict[str, dict[Literal["input", "output"], Price]], NoDecode, BeforeValidator(as_object)
    ] = {}
    cors_allowed_origins: Origins = ()
    public_docs: bool = True
    public_metrics: bool = True

    # --- documents ---
    max_upload_mb: int = Field(100, ge=1, le=1024)
    max_chunk_tokens: int = Field(512, ge=32, le=2048)
    chunk_overlap_tokens: int = Field(64, ge=0, le=512)
    max_embed_chunks: int = Field(60, ge=1, le=64)
    max_embed_tokens: int = Field(40_000, ge=2048, le=1_000_000)
    ingestion_concurrency: int = Field(2, ge=1, le=64)
    embedding_concurrency: int = Field(4, ge=1, le=256)
    retrieval_concurrency: int = Field(64, ge=1, le=4096)
    document_expires_after_s: int = Field(21_600, ge=60, le=86_400)
    context_tokens: Annotated[
        dict[str, Annotated[int, Field(ge=512, le=10_000_000)]], NoDecode, BeforeValidator(by_provider)
    ] = {}
    relevant_from: Annotated[dict[str, Annotated[float, Field(ge=-1, le=1)]], NoDecode, BeforeValidator(as_object)] = {}
    retrieved_risk_refuse_from: float = Field(0.8, ge=0.01, le=1.01)
    answer_link_hosts: Hosts = ()

    # --- agents ---
    agent_concurrency: int = Field(256, ge=1, le=4096)
    agent_max_tokens: int = Field(100_000, ge=1_000, le=10_000_000)
    agent_max_cost: float | None = Field(None, gt=0, allow_inf_nan=False)
    agent_api_hosts: Hosts = ()
    agent_memory_ttl_days: int = Field(90, ge=1, le=3650)

    # --- training ---
    training_concurrency: int = Field(1, ge=1, le=16)
    training_expires_after_s: int = Field(14_400, ge=60, le=86_400)
    qwen3_vl_training_timeout_s: float = Field(3_600, ge=1, le=86_400)
    max_training_examples: int = Field(1_000, ge=4, le=10_000)
    max_adapters_per_user: int = Field(10, ge=0, le=100)

    # --- workers ---
    worker_id: str | None = None
    worker_http_host: str = "127.0.0.1"
    worker_http_port: int = Field(0, ge=0, le=65_535)
    drain_timeout: float = Field(30, ge=0)
    revoke_drain_s: float = Field(2, ge=0)
    session_timeout_s: float = Field(6, ge=6)
    stall_timeout: float = Field(60, ge=5)
    stage_cool_down_s: float = Field(30, ge=0.1, le=3600)

    # --- secrets from Vault; without an address there are none ---
    vault_addr: str | None = None
    vault_token: SecretStr | None = None
    vault_role_id: str | None = None
    vault_secret_id: SecretStr | None = None
    vault_kubernetes_role: str | None = None
    vault_kubernetes_token_path: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    vault_namespace: str | None = None
    vault_cacert: Path | None = None
    vault_mount: str = "secret"
    vault_path: str = "ai-assistant-api"
    vault_refresh_s: float = Field(60, ge=1, le=86_400)

    # --- webhooks ---
    webhook_allow_private: bool = False
    webhook_timeout_s: float = Field(15, ge=1, le=60)
    egress_allowed_hosts: Hosts = ()
    egress_allowed_ports: Ports = ()

    # --- the machine ---
    assistant_home: Path = ROOT / ".assistant"
    debug_mode: bool = False

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Environment over `.env` over Vault; Vault stands first, for it alone knows what it must leave alone."""
        from vault.source import VaultSource

        higher = (init_settings, env_settings, dotenv_settings)
        return VaultSource(settings_cls, higher, none_where_empty=NONE_WHERE_EMPTY), *higher

    @field_validator(*NONE_WHERE_EMPTY, mode="before")
    @classmethod
    def _none_where_empty(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _kafka_security_fits(self) -> "Settings":
        self.kafka_security.check(self.kafka_bootstrap_servers, allow_plaintext_sasl=self.kafka_allow_plaintext_sasl)
        return self

    @model_validator(mode="before")
    @classmethod
    def _warn_of_unused(cls, given: dict[str, Any]) -> dict[str, Any]:
        # Unknown names of `.env` are among what is given, in small letters; those of the environment are not.
        names = {name.upper() for name in (*os.environ, *given)}
        unused = sorted(name for name in names if name.startswith(UNUSED_PREFIXES))
        if unused:
            logger.warning("these settings mean nothing here and are ignored: %s", ", ".join(unused))
        return given

    @cached_property
    def kafka_security(self) -> KafkaSecurity:
        """How Kafka is spoken to; goes with every `KafkaAccess`."""
        given = {name: getattr(self, f"kafka_{name}") for name in KafkaSecurity.__dataclass_fields__}
        plain: dict[str, Any] = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in given.items()
        }
        return KafkaSecurity(**plain)

    @cached_property
    def postgres_dsn(self) -> str | None:
        """A DSN that asyncpg and psql open, or None where no database is named."""
        if self.database_url is not None:
            scheme, _, rest = self.database_url.get_secret_value().partition("://")
            if scheme.partition("+")[0] not in ("postgres", "postgresql") or not rest:
                raise ValueError("DATABASE_URL must look like postgresql://user:password@host:port/name")
            return f"postgresql://{rest}"
        if self.db_host is None:
            return None
        password = quote(self.db_pass.get_secret_value(), safe="")
        return f"postgresql://{quote(self.db_user, safe='')}:{password}@{self.db_host}/{quote(self.db_name, safe='')}"


class SettingsWithoutVault(Settings):
    """The same without asking Vault: for commands that need no secret, and where Vault was asked already."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 as above
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Environment over `.env`."""
        return init_settings, env_settings, dotenv_settings
