"""Kafka, Postgres and a model for a machine that has none, and the supervisor of all processes."""
