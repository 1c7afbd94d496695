"""Event contracts: what is on each topic. Imports pydantic, nothing of ours."""
