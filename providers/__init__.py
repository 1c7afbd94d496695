"""Adapters to model APIs: all that leaves the process for an answer is visible here."""
