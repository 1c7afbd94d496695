"""Others that carry jobs, on the same machine, stand-in and load: what their workers and fronts are made of.

Everything but `__main__`, `run` and `sync` runs in an environment of its own (`make bench-peers`), where we are not.
"""
