"""The same prompts put to several providers and settings."""
