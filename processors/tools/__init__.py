"""What agents can do: one tool per file, and `registry` with all of them."""
