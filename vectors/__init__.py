"""Chunks and their vectors in Qdrant."""
