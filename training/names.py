"""What a block's matrices are called by llama.cpp and by torch, and how their rows lie."""

from typing import Any

# Source: llama.cpp, gguf-py/gguf/tensor_mapping.py.
MODULES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


def to_llama_order(rows: Any, heads: int) -> Any:
    """Rows of a query's or key's matrix as llama.cpp has them: it turns neighbours, torch turns halves of a head.

    Source: llama.cpp, convert_hf_to_gguf.py, LlamaModel.permute.
    """
    return rows.reshape(heads, 2, len(rows) // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def to_torch_order(rows: Any, heads: int) -> Any:
    """The other way round."""
    return rows.reshape(heads, len(rows) // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)
