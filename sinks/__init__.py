"""Where finished work goes: Postgres and webhooks."""
