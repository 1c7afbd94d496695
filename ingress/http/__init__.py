"""HTTP itself: what is read of a request, within which bounds, and how errors look."""
