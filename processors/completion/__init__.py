"""One answer of a provider: what is asked, how it is watched, and who is asked next."""
