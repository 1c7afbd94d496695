from uuid import UUID

import pytest

from schemas.audio_links import LINK_S, AudioLinks
from schemas.ids import derive_key

JOB, OTHER, NOW = UUID(int=1), UUID(int=2), 1_000_000.5
OLD, NEW = "o" * 40, "n" * 40


def parts(path: str) -> tuple[int, str]:
    query = dict(part.split("=") for part in path.partition("?")[2].split("&"))
    return int(query["expires"]), query["signature"]


def test_an_address_is_good_for_its_job_and_its_time() -> None:
    links = AudioLinks([NEW])
    path = links.path(JOB, now_s=NOW)
    assert path.startswith(f"/jobs/{JOB}/audio?")
    expires, signature = parts(path)
    assert links.verdict(JOB, expires, signature, now_s=NOW) == "good"
    assert links.verdict(JOB, expires, signature, now_s=NOW + LINK_S) == "expired"
    assert links.verdict(OTHER, expires, signature, now_s=NOW) == "wrong"
    assert links.verdict(JOB, expires + 1, signature, now_s=NOW) == "wrong"
    assert links.verdict(JOB, expires + 1, signature, now_s=NOW + 10 * LINK_S) == "wrong"


@pytest.mark.parametrize("signature", ["", "0" * 64, "ä", "x" * 128])
def test_what_was_not_made_here_is_wrong(signature: str) -> None:
    assert AudioLinks([NEW]).verdict(JOB, int(NOW) + 9, signature, now_s=NOW) == "wrong"


def test_an_address_outlives_a_rotation_of_the_secret_and_no_more() -> None:
    expires, signature = parts(AudioLinks([OLD]).path(JOB, now_s=NOW))
    assert AudioLinks([NEW, OLD]).verdict(JOB, expires, signature, now_s=NOW) == "good"
    assert AudioLinks([NEW]).verdict(JOB, expires, signature, now_s=NOW) == "wrong"


def test_its_key_is_for_nothing_else() -> None:
    assert derive_key(NEW, "audio-link") != derive_key(NEW, "job-id")
