"""What the product does: one pure stage per file. No I/O, no clock, no environment."""
