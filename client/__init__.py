"""The command line's own client of the REST API."""
