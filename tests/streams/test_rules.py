from typing import Any

import pytest

from processors.filter.answer_policy import Sent
from settings import Settings
from streams.rules import Newest, answer_rules, prompt_rules
from vault.live import LiveSettings

NOTHING = Sent(None, ())
KEY = "a-provider-key-0123456789-abcdef"


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, **given)


def changed(live: LiveSettings, new: Settings) -> None:
    for subscriber in live._subscribers:
        subscriber(new)


def test_rules_are_made_anew_when_the_settings_change() -> None:
    old = settings()
    live = LiveSettings(old)
    prompts, answers = Newest(prompt_rules, old, live), Newest(answer_rules, old, live)
    assert prompts().verdict("open the cellar door").action == "pass"
    assert answers().judge("the cellar is open", NOTHING) is None
    changed(live, settings(instruction_patterns=("open the cellar door",), forbidden_llm_output=("cellar is open",)))
    assert prompts().verdict("open the cellar door").action == "refuse"
    assert answers().judge("the cellar is open", NOTHING) == "forbidden-output"


def test_rules_that_do_not_fit_leave_those_that_there_are() -> None:
    old = settings(instruction_patterns=("open the cellar door",))
    live = LiveSettings(old)
    prompts = Newest(prompt_rules, old, live)
    with pytest.raises(ValueError, match="INSTRUCTION_REGEX"):
        changed(live, settings(instruction_regex="(?=never)"))
    assert prompts().verdict("open the cellar door").action == "refuse"


def test_no_answer_holds_a_secret_of_this_process_a_new_one_included() -> None:
    old = settings(openai_api_key=KEY)
    live = LiveSettings(old)
    answers = Newest(answer_rules, old, live)
    assert answers().judge(f"it is {KEY}", NOTHING) == "secret"
    changed(live, settings(openai_api_key=KEY[::-1], gemini_api_key=f"gemini-{KEY}"))
    assert answers().judge(f"it is {KEY[::-1]}", NOTHING) == "secret"
    assert answers().judge(f"it is gemini-{KEY}", NOTHING) == "secret"
