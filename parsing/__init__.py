"""Files read into text, each in a process of its own with bounds on all that it may take."""
