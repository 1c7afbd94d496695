"""Trains LoRA adapters of the embedded model, in a process of its own: `python -m training`."""
