from datetime import datetime

import pytest
from pydantic import ValidationError

from schemas.events import SecurityIncidentDetected


def told(at: str) -> SecurityIncidentDetected:
    return SecurityIncidentDetected(at=at, user_id="alice", reason="exfiltration", stage="sanitize_prompt")


def test_a_time_without_a_zone_is_none() -> None:
    """Compared with another one in a sink's batch it would end the sink."""
    with pytest.raises(ValidationError, match="timezone"):
        told("2026-01-01T00:00:00")
    assert told("2026-01-01T00:00:00+02:00").at == datetime.fromisoformat("2025-12-31T22:00:00Z")
