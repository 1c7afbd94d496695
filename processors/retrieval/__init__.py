"""From passages that were found to an answer that cites them."""
