"""An adapter as a GGUF file that llama.cpp loads."""

import os
from typing import Any

import numpy as np
from gguf import GGUFWriter
from gguf.gguf_writer import WriterState

from training.job import Recipe
from training.names import MODULES, to_llama_order

HEAD_BYTES = 128 * 1024  # names, shapes and padding of some 420 matrices take a third of it


class AdapterFile:
    """Opened before anything is read, for afterwards this process opens no file for writing."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb")

    def reserve(self, model: Any) -> None:
        """Have its room on the disk now, and not learn after hours that there is none.

        Raises:
            OSError: There is none.
        """
        numbers = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        os.posix_fallocate(self._file.fileno(), 0, 2 * numbers + HEAD_BYTES)

    def write(self, model: Any, facts: dict[str, Any], recipe: Recipe) -> None:
        """All of it, in half precision. Source: llama.cpp, convert_lora_to_gguf.py."""
        writer = GGUFWriter(None, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", recipe.alpha)
        heads = {"attn_q": facts["llama.attention.head_count"], "attn_k": facts["llama.attention.head_count_kv"]}
        for block, layer in enumerate(model.base_model.model.model.layers):
            for matrix in recipe.matrices:
                module = layer.get_submodule(MODULES[matrix])
                down = module.lora_A["default"].weight.detach().numpy()
                up = module.lora_B["default"].weight.detach().numpy()
                if matrix in heads:
                    up = to_llama_order(up, heads[matrix])  # only its rows are of the matrix that llama.cpp turns
                name = f"blk.{block}.{matrix}.weight"
                writer.add_tensor(f"{name}.lora_a", down.astype(np.float16))
                writer.add_tensor(f"{name}.lora_b", up.astype(np.float16))
        writer.fout, writer.state = [self._file], WriterState.EMPTY  # as its `open_output_file` would
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        self._file.truncate()  # what was reserved and not needed
        writer.close()
