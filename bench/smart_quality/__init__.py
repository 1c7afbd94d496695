"""How well queries are told apart that one answer is enough for, and those that need an agent."""
