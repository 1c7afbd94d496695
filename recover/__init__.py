"""After a disaster: what Postgres has lost comes back from the topics, and what Kafka has lost from Postgres."""
