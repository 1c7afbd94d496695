"""An agent's steps: plan, history, memory, and whether one is needed at all."""
