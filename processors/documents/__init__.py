"""Documents: ports, chunks, and which collection a question is put to."""
