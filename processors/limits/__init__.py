"""What users have under way and have used, for limits beside the request rate."""
