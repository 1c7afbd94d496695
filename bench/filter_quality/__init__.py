"""How good the filter on prompts is, on texts whose labels are known."""
