"""A job's answer for all who listen to it."""
