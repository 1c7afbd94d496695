"""OpenAI's API over the same topics."""
