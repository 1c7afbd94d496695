"""The pipeline under Faust. Start reading in `assistant.py`."""
