"""Looks at every part of a deployment and says what is wrong, and what to do. Changes nothing."""
