"""The model of a GGUF file as torch has it, with an adapter by peft."""

from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from training.job import CannotTrainError, Recipe
from training.names import MODULES, to_torch_order

OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def read_file(path: str) -> tuple[dict[str, Any], Any]:
    """What the file says of the model, and its reader.

    Raises:
        CannotTrainError: It is no llama.
    """
    reader = GGUFReader(path)
    facts = {name: field.contents() for name, field in reader.fields.items() if field.data}
    if facts.get("general.architecture") != "llama":
        raise CannotTrainError(f"{path} is no model of the llama architecture")
    return facts, reader


def make_model(facts: dict[str, Any], reader: Any, recipe: Recipe) -> Any:
    """With its weights as floats, and a fresh adapter that changes nothing yet."""
    heads = facts["llama.attention.head_count"], facts["llama.attention.head_count_kv"]
    names = {tensor.name for tensor in reader.tensors}
    config = LlamaConfig(
        vocab_size=facts["llama.vocab_size"], hidden_size=facts["llama.embedding_length"],
        intermediate_size=facts["llama.feed_forward_length"], num_hidden_layers=facts["llama.block_count"],
        num_attention_heads=heads[0], num_key_value_heads=heads[1],
        max_position_embeddings=facts["llama.context_length"],
        rms_norm_eps=facts["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": facts["llama.rope.freq_base"]},
        tie_word_embeddings="output.weight" not in names, bos_token_id=facts["tokenizer.ggml.bos_token_id"],
        eos_token_id=facts["tokenizer.ggml.eos_token_id"], pad_token_id=facts["tokenizer.ggml.eos_token_id"],
        attn_implementation="sdpa",
    )  # fmt: skip
    with torch.device("meta"):  # neither memory nor time for weights that are thrown away
        model = LlamaForCausalLM(config)
    weights = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name, place = tensor.name.removesuffix(".weight"), OUTER.get(tensor.name.removesuffix(".weight"))
        if place is None:
            _, block, matrix = name.split(".")
            place = f"model.layers.{block}.{MODULES[matrix]}"
            if matrix in ("attn_q", "attn_k"):
                values = to_torch_order(values, heads[matrix == "attn_k"])
        weights[f"{place}.weight"] = torch.from_numpy(np.ascontiguousarray(values))
    missing, unknown = model.load_state_dict(weights, strict=False, assign=True)
    if unknown or [name for name in missing if name != "lm_head.weight"]:
        raise CannotTrainError(f"weights do not fit: {[*missing, *unknown][:5]}")
    model.tie_weights()
    model.model.rotary_emb = LlamaRotaryEmbedding(config)  # computed, and so in no file
    chosen = [MODULES[matrix].rpartition(".")[2] for matrix in recipe.matrices]
    lora = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=chosen, task_type="CAUSAL_LM")
    return get_peft_model(model, lora)
