"""Adapters and their training: ports, and what is held out to compare by."""
