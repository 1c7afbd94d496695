"""Kafka as both `streams` and `ingress` need it: client options, topics, compacted tables, publishing."""
