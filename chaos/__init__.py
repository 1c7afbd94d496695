"""The chaos suite: real processes are broken on purpose, and a ledger outside of them says what was lost.

Never imported by the product. `make chaos` runs it; docs/chaos.md says what is counted and how to replay.
"""
