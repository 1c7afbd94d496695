"""Run by the environment that has torch: an adapter of random numbers, and what torch makes of it.

`python -m tests.training.torch_scores MODEL FILE`: writes the adapter to FILE, of queries and keys alone, whose
rows lie otherwise in llama.cpp; prints the likeliest next tokens of each prompt with their log-probabilities, as JSON.
"""

import json
import os
import sys

import torch

from training.adapter_file import AdapterFile
from training.job import Example, Recipe
from training.model import make_model, read_file
from training.words import Words

PROMPTS = ("Tell me about Rome.", "What is a cat?", "Name three colours.")
STRENGTH = 0.4


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    recipe = Recipe(matrices=("attn_q", "attn_k"))
    facts, reader = read_file(sys.argv[1])
    model, words = make_model(facts, reader, recipe), Words(facts)
    model.eval()
    bare = [scores(model, words, prompt) for prompt in PROMPTS]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, STRENGTH)
    with_adapter = [scores(model, words, prompt) for prompt in PROMPTS]
    AdapterFile(os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)).write(model, facts, recipe)
    print(json.dumps({"bare": bare, "with": with_adapter}))


def scores(model: object, words: Words, prompt: str) -> dict[str, float]:
    tokens = words.prompt(Example(prompt, "", ""))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]  # type: ignore[operator]
    found = torch.log_softmax(logits.float(), -1).topk(5)
    return {
        words.text([token]): value for token, value in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    }


if __name__ == "__main__":
    main()
