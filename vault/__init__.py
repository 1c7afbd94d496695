"""Settings from HashiCorp Vault (or OpenBao), KV v2: read at start, and followed while a process runs."""
