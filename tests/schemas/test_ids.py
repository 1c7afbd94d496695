from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import JobIds, derived_event_id, direct_job_id
from tests.conftest import SECRET

OTHER = "another-secret-0123456789-abcdefghijklmnopqrstuvwxyz"


@given(st.text(min_size=1, max_size=50), st.integers(0, 2**48 - 1))
def test_an_id_belongs_to_its_user_and_tells_its_time(user_id: str, at: int) -> None:
    ids = JobIds([SECRET])
    job_id = ids.mint(user_id, now_ms=at)
    assert (job_id.version, job_id.variant) == (8, "specified in RFC 4122")
    assert ids.belongs(job_id, user_id)
    assert not ids.belongs(job_id, user_id + "x")
    assert JobIds.minted_at_ms(job_id) == at
    assert not ids.belongs(UUID(int=job_id.int ^ 1), user_id)
    assert not ids.belongs(UUID(int=job_id.int ^ (1 << 100)), user_id)


def test_ids_do_not_repeat_and_random_ones_belong_to_nobody() -> None:
    ids = JobIds([SECRET])
    assert len({ids.mint("alice") for _ in range(2000)}) == 2000
    assert not any(ids.belongs(uuid4(), "alice") for _ in range(2000))


def test_both_secrets_count_during_a_rotation() -> None:
    old = JobIds([OTHER]).mint("alice")
    assert JobIds([SECRET, OTHER]).belongs(old, "alice")
    assert not JobIds([SECRET]).belongs(old, "alice")


def test_derived_ids_are_the_same_each_time_and_apart_from_each_other() -> None:
    job_id = UUID(int=7)
    one = derived_event_id(job_id, cause="c", stage="s", run=1, index=0)
    assert one == derived_event_id(job_id, cause="c", stage="s", run=1, index=0)
    assert one != derived_event_id(job_id, cause="c", stage="s", run=2, index=0)
    assert direct_job_id("a", "u", "1") != direct_job_id("a", "v", "1") != direct_job_id("b", "v", "1")
