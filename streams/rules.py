"""The rules for prompts and answers as the settings have them now; where these follow Vault, so do the rules."""

from collections.abc import Callable
from typing import Generic, TypeVar

from processors.filter.answer_policy import AnswerPolicy
from processors.filter.prompt_policy import PromptPolicy
from settings import Settings
from vault.live import LiveSettings

T = TypeVar("T")


class Newest(Generic[T]):
    """What is made of settings, anew whenever they change: whole, or not at all. Called, it gives the newest."""

    def __init__(self, make: Callable[[Settings], T], settings: Settings, live: LiveSettings) -> None:
        """`make`: raises ValueError for settings that do not fit; what was made before stays then."""
        self._make, self._made = make, make(settings)
        live.subscribe(self._take)

    def __call__(self) -> T:
        """As of now."""
        return self._made

    def _take(self, settings: Settings) -> None:
        self._made = self._make(settings)


def prompt_rules(settings: Settings) -> PromptPolicy:
    """The rules for prompts. Raises ValueError for a regex that RE2 does not take."""
    return PromptPolicy(
        max_prompt_chars=settings.max_prompt_length,
        forbidden_commands=settings.forbidden_commands,
        instruction_patterns=settings.instruction_patterns,
        exfiltration_patterns=settings.exfiltration_patterns,
        instruction_regex=settings.instruction_regex,
        role_override_regex=settings.role_override_regex,
        meta_system_regex=settings.meta_system_regex,
        flag_from=settings.risk_flag_from,
        refuse_from=settings.risk_refuse_from,
    )


def answer_rules(settings: Settings) -> AnswerPolicy:
    """The rules for answers. No secret that this process holds is told, whoever has put it before a model."""
    held = (
        settings.jwt_secret_key, settings.jwt_secret_key_previous, settings.root_usr_pass, settings.db_pass,
        settings.openai_api_key, settings.gemini_api_key, settings.lmstudio_api_key, settings.kafka_sasl_password,
        settings.kafka_sasl_oauth_client_secret, settings.vault_token, settings.vault_secret_id,
    )  # fmt: skip
    return AnswerPolicy(
        forbidden=settings.forbidden_llm_output,
        own_secrets=[secret.get_secret_value() for secret in held if secret is not None],
        leaked_share=settings.leaked_instruction_share,
    )
