"""What whoever waits for a job is shown."""

import io

from rich.console import Console

from client.waiting import Waiting


def test_in_a_log_there_is_one_line_for_each_wait_and_none_for_stages() -> None:
    written = io.StringIO()
    with Waiting(Console(file=written)) as waiting:
        waiting.on_stage("route_job")
        for left in (3, 2, 1):
            waiting.on_wait(left, 3)
    assert written.getvalue() == "rate limit: waiting 3 s\n"


def test_at_a_terminal_the_stage_stands_there_in_words_while_it_is_waited_for() -> None:
    written = io.StringIO()
    with Waiting(Console(file=written, force_terminal=True, width=80)) as waiting:
        waiting.on_stage("route_job")
    assert "on its way to the provider" in written.getvalue()
    assert "route_job" not in written.getvalue()
