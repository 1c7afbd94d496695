"""Who asks, what that is worth, and where they stand with their limits."""
