"""The ACLs of each role follow from `topics.yaml`."""

import json
import shlex
from itertools import pairwise

import pytest
from typer.testing import CliRunner

import cli
from schemas.topics import Catalog, Topic
from transport.acls import ROLES, UnknownPartyError, acls, as_commands, as_public

CATALOG = Catalog.load(prefix="staging.")
FOUND = acls(CATALOG, ["openai", "local"])


def topics(role: str, operation: str) -> set[str]:
    return {
        acl.name.removeprefix("staging.") for acl in FOUND
        if (acl.role, acl.operation, acl.resource) == (role, operation, "topic")
    }  # fmt: skip


def test_a_role_writes_and_reads_what_its_stages_do_and_nothing_else() -> None:
    assert topics("completion", "Write") == {
        "completion-requested-openai", "completion-requested-local", "job-progressed", "completion-streamed",
        "job-finished", "dead-letters", "worker-heartbeat",
    }  # fmt: skip
    assert topics("completion", "Read") == {
        "completion-requested-openai", "completion-requested-local", "embedding-requested-openai",
        "embedding-requested-local", "job-cancel-requested", "user-updated", "worker-heartbeat",
    }  # fmt: skip
    assert topics("ingestion", "Write") == {
        "chunks-prepared", "job-progressed", "job-finished", "dead-letters", "worker-heartbeat",
    }  # fmt: skip
    assert topics("ingestion", "Read") >= {"document-received", "chunks-prepared", "job-cancel-requested"}
    assert "job-admitted" in topics("gate", "Read") & topics("gate", "Write")
    assert topics("sink", "Read") >= {"job-admitted", "job-finished", "dead-letters"}
    assert topics("ingress", "Write") >= {"job-requested", "user-updated", "job-cancel-requested"}
    assert not topics("ingress", "Write") & {"job-finished", "job-progressed", "worker-heartbeat", "dead-letters"}


def test_only_those_who_change_users_write_them() -> None:
    writers = {role for role in ROLES if "user-updated" in topics(role, "Write")}
    assert writers == {"ingress", "admin", "recover", "sink"}  # the sink puts them in quarantine


def test_a_direct_publisher_writes_and_reads_nothing() -> None:
    assert topics("publisher", "Write") == {"job-requested", "job-cancel-requested"}
    assert not topics("publisher", "Read")
    assert not topics("publisher", "DescribeConfigs")


def test_a_worker_has_its_own_groups_and_nobody_a_transaction() -> None:
    groups = {(acl.role, acl.name, acl.operation, acl.prefixed) for acl in FOUND if acl.resource == "group"}
    assert groups == {
        ("gate", "staging.assistant-gate", "Read", True), ("completion", "staging.assistant-completion", "Read", True),
        ("sink", "staging.assistant-sink", "Read", True), ("recover", "staging.assistant-sink", "Describe", True),
        ("retrieval", "staging.assistant-retrieval", "Read", True), ("agent", "staging.assistant-agent", "Read", True),
        ("ingestion", "staging.assistant-ingestion", "Read", True),
        ("training", "staging.assistant-training", "Read", True),
        ("speech", "staging.assistant-speech", "Read", True),
    }  # fmt: skip
    assert {acl.resource for acl in FOUND} == {"topic", "group", "cluster"}


def test_only_the_administrator_makes_topics_and_nobody_deletes_them() -> None:
    assert {acl.role for acl in FOUND if acl.operation in ("Create", "Alter", "AlterConfigs")} == {"admin"}
    assert {acl.operation for acl in FOUND} <= {
        "Read", "Write", "Create", "Alter", "Describe", "DescribeConfigs", "AlterConfigs", "IdempotentWrite",
    }  # fmt: skip


def test_the_lines_for_a_shell_say_the_same_as_the_json() -> None:
    said = set()
    for line in as_commands(FOUND, prefix="p-", bootstrap_servers="h:1"):
        words = shlex.split(line)
        options = list(pairwise(words))
        operations = [value for option, value in options if option == "--operation"]
        names = [(option[2:].upper(), value) for option, value in options if option in ("--topic", "--group")]
        names += [("CLUSTER", "kafka-cluster")] if "--cluster" in words else []
        (who,) = [value for option, value in options if option == "--allow-principal"]
        pattern = "PREFIXED" if "--resource-pattern-type" in words else "LITERAL"
        said |= {(who, kind, name, pattern, operation) for kind, name in names for operation in operations}
    public = {
        (one["principal"], one["resource_type"], one["resource_name"], one["pattern_type"], one["operation"])
        for one in as_public(FOUND, prefix="p-")
    }
    assert said == public
    assert len(public) == len(FOUND)


def test_a_producer_that_no_role_is_known_for_is_told_of() -> None:
    topic = Topic(
        name="a-b", description="d", event=None, key="job_id", producers=("newcomer",), consumers=(), partitions=1
    )
    with pytest.raises(UnknownPartyError, match="newcomer"):
        acls(Catalog([topic]), [], ["gate"])


def test_one_user_may_have_the_rights_of_several_roles() -> None:
    words = ["topics", "acls", "--roles", "gate,sink", "--principal", "everything", "--json"]
    given = json.loads(CliRunner().invoke(cli.app, words).output)
    assert {one["principal"] for one in given} == {"User:everything"}
    told = [(one["resource_name"], one["operation"]) for one in given]
    assert len(set(told)) == len(told)
    assert {("dead-letters", "Read"), ("dead-letters", "Write")} <= set(told)


def test_the_command_prints_both_and_refuses_a_role_that_there_is_not() -> None:
    run = CliRunner().invoke
    lines = run(cli.app, ["topics", "acls", "--roles", "gate,sink", "--principal-prefix", "x-"])
    assert lines.exit_code == 0
    assert {line.split("User:")[1].split()[0] for line in lines.output.splitlines()} == {"x-gate", "x-sink"}
    found = json.loads(run(cli.app, ["topics", "acls", "--json"]).output)
    assert {one["role"] for one in found} == set(ROLES)
    wrong = run(cli.app, ["topics", "acls", "--roles", "gatekeeper"])
    assert wrong.exit_code == 1
