"""What may come in and go out: normalising, rules, and how a text is judged by them."""
