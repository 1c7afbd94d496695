"""The faults, by what they hit; `registry.py` has the list of all. Row numbers are those of docs/chaos.md."""
