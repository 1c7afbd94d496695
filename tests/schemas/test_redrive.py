from uuid import uuid4

import pytest

from schemas.redrive import MAC_HEADER, RUN_HEADER, RedriveMarks

NEW, OLD = "n" * 40, "o" * 40


def test_a_mark_of_ours_raises_the_run_of_its_job_also_over_a_rotation() -> None:
    job_id = uuid4()
    mark = RedriveMarks([OLD]).headers(job_id, 3)
    assert RedriveMarks([OLD]).run(mark, job_id) == 3
    assert RedriveMarks([NEW, OLD]).run([("ce_id", b"x"), *mark], job_id) == 3
    assert RedriveMarks([NEW]).run(mark, job_id) == 1


def test_a_mark_holds_for_one_job_and_one_run() -> None:
    job_id, marks = uuid4(), RedriveMarks([NEW])
    (run_header, mac_header) = marks.headers(job_id, 3)
    assert marks.run([run_header, mac_header], uuid4()) == 1
    assert marks.run([(RUN_HEADER, b"4"), mac_header], job_id) == 1
    assert marks.run([run_header], job_id) == 1
    assert marks.run([mac_header], job_id) == 1
    assert marks.run([], job_id) == 1


@pytest.mark.parametrize("run", [b"", b"-1", b"0", b"x", b"3 ", b"\xff", "３".encode(), b"1" * 5000, b"9999999"])
@pytest.mark.parametrize("mac", [b"", b"\xff\x00", b"0" * 64])
def test_any_bytes_in_a_mark_are_read(run: bytes, mac: bytes) -> None:
    assert RedriveMarks([NEW]).run([(RUN_HEADER, run), (MAC_HEADER, mac)], uuid4()) == 1
