"""Text as the model's tokens, by what its GGUF file says of them."""

from dataclasses import dataclass
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from training.job import CannotTrainError, Example

CONTROL = 3  # a token's type in GGUF: one that is never made of a text's letters
NO_LOSS = -100  # what the loss leaves out


@dataclass(frozen=True, slots=True)
class Lesson:
    """An example as tokens; `wanted`: those of the answer, and `NO_LOSS` where none is learnt."""

    tokens: list[int]
    wanted: list[int]


class Words:
    """The tokenizer and the chat template of a model of SmolLM2's family."""

    def __init__(self, facts: dict[str, Any]) -> None:
        """`facts`: of the GGUF file.

        Raises:
            CannotTrainError: Its tokenizer is of another kind.
        """
        kind = (facts["tokenizer.ggml.model"], facts.get("tokenizer.ggml.pre"))
        if kind != ("gpt2", "smollm"):
            raise CannotTrainError(f"the model's tokenizer is {kind}, and only SmolLM2's is known here")
        names: list[str] = facts["tokenizer.ggml.tokens"]
        merges = [tuple(merge.split(" ", 1)) for merge in facts["tokenizer.ggml.merges"]]
        found = Tokenizer(models.BPE({name: at for at, name in enumerate(names)}, merges))
        # Source: llama.cpp, src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM.
        digits, letters = (
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        )
        found.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
        found.decoder = decoders.ByteLevel()
        controls = zip(names, facts["tokenizer.ggml.token_type"], strict=True)
        found.add_special_tokens([AddedToken(name, special=True) for name, kind in controls if kind == CONTROL])
        self._tokenizer = found
        self.end: int = facts["tokenizer.ggml.eos_token_id"]
        template = facts["tokenizer.chat_template"]
        self._template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)

    def prompt(self, example: Example) -> list[int]:
        """All up to where the model answers."""
        messages = [{"role": "user", "content": example.prompt}]
        return self.tokens(self._template.render(messages=messages, add_generation_prompt=True))

    def lesson(self, example: Example, *, most: int) -> Lesson:
        """Prompt and answer; of one that is too long the end is cut off."""
        prompt = self.prompt(example)
        answer = [*self._tokenizer.encode(example.output, add_special_tokens=False).ids, self.end]
        tokens, wanted = prompt + answer, [NO_LOSS] * len(prompt) + answer
        return Lesson(tokens[:most], wanted[:most])

    def tokens(self, text: str) -> list[int]:
        """Of a text, the template's own control tokens among them."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def text(self, tokens: list[int]) -> str:
        """What a person reads of them."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))
