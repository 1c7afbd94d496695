"""The REST front door: authenticate, validate, publish, follow."""
