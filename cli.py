"""The `assistant` command: one function per command, no logic of its own."""

import asyncio
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from uuid import UUID

import typer
from pydantic import ValidationError

from client.account_commands import keys, users
from client.admin_commands import dlq, incidents
from client.document_commands import documents, ingest
from client.job_commands import cancel, jobs
from client.training_commands import adapters, train
from settings import ROLES, Settings, SettingsWithoutVault
from transport.kafka_security import KafkaSecurityError
from vault.errors import VaultStoreError

if TYPE_CHECKING:
    from transport.acls import Acl

app = typer.Typer(no_args_is_help=True, add_completion=False, help="An event-driven back end for AI assistants.")
topics = typer.Typer(no_args_is_help=True, help="The topics of topics.yaml, and those of the cluster.")
app.add_typer(topics, name="topics")
app.add_typer(dlq, name="dlq")
app.add_typer(incidents, name="incidents")
app.add_typer(jobs, name="jobs")
app.command()(cancel)
app.add_typer(users, name="users")
app.add_typer(keys, name="keys")
app.command()(ingest)
app.add_typer(documents, name="documents")
app.command()(train)
app.add_typer(adapters, name="adapters")


def main() -> None:
    """Entry point; settings that do not fit are told by name."""
    try:
        app()
    except ValidationError as error:
        for found in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in found["loc"]).upper()
            message = found["msg"].removeprefix("Value error, ")
            print(f"{name}: {message}" if name else message, file=sys.stderr)
        raise SystemExit(2) from None
    except (KafkaSecurityError, VaultStoreError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def _fail(message: object) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(1)


@app.command()
def up(
    detach: Annotated[bool, typer.Option(help="Return when all is ready")] = False,
    greet: Annotated[bool, typer.Option(hidden=True)] = True,
) -> None:
    """Start everything: what has no address set (Kafka, Postgres, a model), the ingress, and the workers."""
    from embedded import commands

    raise SystemExit(commands.up(Settings(), detach=detach, greet=greet))


@app.command()
def down(delete_data: Annotated[bool, typer.Option(help="Leave nothing of it")] = False) -> None:
    """Stop what `up` has started; the data is kept."""
    from embedded import commands

    raise SystemExit(commands.down(SettingsWithoutVault(), delete_data=delete_data))


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False) -> None:
    """Show what runs; fails where not all of it is ready."""
    from embedded import commands

    raise SystemExit(commands.status(SettingsWithoutVault(), as_json=as_json))


@app.command()
def chat(
    prompt: str,
    provider: Annotated[str | None, typer.Option(help="Which one; the default otherwise")] = None,
    instruction: Annotated[str | None, typer.Option(help="How to answer")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2)] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, max=8192)] = None,
    timeout: Annotated[float | None, typer.Option(min=1, max=120, help="Seconds of work")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer")] = False,
) -> None:
    """Ask and wait for the answer; shows where the job is."""
    from client import commands

    generation = {"temperature": temperature, "max_tokens": max_tokens}
    body = {
        "prompt": prompt, "provider": provider, "instruction": instruction, "timeout": timeout,
        "generation_config": {name: value for name, value in generation.items() if value is not None},
    }  # fmt: skip
    body = {name: value for name, value in body.items() if value is not None}
    settings = Settings()
    raise SystemExit(
        commands.chat(settings.assistant_home, body, root_password=_root_password(settings), as_json=as_json)
    )


@app.command()
def say(
    text: str,
    output: Annotated[Path, typer.Option("--output", "-o", help="The WAV file to write")],
    speaker: Annotated[str | None, typer.Option(help="Of GET /tts/speakers; else the provider's first")] = None,
    language: Annotated[str | None, typer.Option(help="Of GET /tts/languages; else as the text is")] = None,
    instruct: Annotated[str | None, typer.Option(help="How it is to be said")] = None,
    provider: Annotated[str | None, typer.Option(help="Which one; else the first that speaks")] = None,
    timeout: Annotated[float | None, typer.Option(min=1, max=120, help="Seconds of work")] = None,
) -> None:
    """Have a text said, and keep it as a WAV file."""
    from client import saying

    body = {
        "prompt": text, "speaker": speaker, "language": language, "instruct": instruct, "provider": provider,
        "timeout": timeout,
    }  # fmt: skip
    body = {name: value for name, value in body.items() if value is not None}
    settings = Settings()
    raise SystemExit(saying.say(settings.assistant_home, body, output, root_password=_root_password(settings)))


@app.command()
def agent(
    goal: str,
    agent_id: Annotated[str, typer.Option("--id", help="Whose memory it has, of your agents")] = "cli",
    provider: Annotated[str | None, typer.Option(help="Who thinks; the default otherwise")] = None,
    max_steps: Annotated[int, typer.Option(min=1, max=20)] = 5,
    timeout: Annotated[float | None, typer.Option(min=1, max=120, help="Seconds of one question")] = None,
    approve: Annotated[str, typer.Option(help="Calls that need it: ask, always or never")] = "ask",
    as_json: Annotated[bool, typer.Option("--json", help="The whole run")] = False,
) -> None:
    """Give an agent a goal; shows its steps, and asks before it calls out with what it has read."""
    from client import agent as commands

    if approve not in ("ask", "always", "never"):
        _fail(f"--approve is ask, always or never, not {approve!r}")
    body = {"goal": goal, "agent_id": agent_id, "provider": provider, "max_steps": max_steps, "timeout": timeout}
    settings, wanted = Settings(), {name: value for name, value in body.items() if value is not None}
    raise SystemExit(
        commands.agent(
            settings.assistant_home, wanted, root_password=_root_password(settings), as_json=as_json,
            approve=approve,  # type: ignore[arg-type]  # one of them, as was checked
        )
    )  # fmt: skip


def _root_password(settings: Settings) -> str | None:
    return settings.root_usr_pass.get_secret_value() if settings.root_usr_pass else None


@app.command()
def workers(as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False) -> None:
    """List the workers: what each has in hand, and what waits for it."""
    from client import commands

    raise SystemExit(commands.workers(SettingsWithoutVault().assistant_home, as_json=as_json))


@app.command()
def compare(
    file: Annotated[Path | None, typer.Argument(help="JSON or YAML: prompts, variants, instruction?, timeout?")] = None,
    report: Annotated[list[Path] | None, typer.Option(help="Write it: .json, .csv or .html; may be repeated")] = None,
    resume: Annotated[UUID | None, typer.Option(help="Look again at one that was begun")] = None,
    cancel: Annotated[UUID | None, typer.Option(help="End one, with its jobs")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
) -> None:
    """Compare providers and settings on the same prompts: every prompt in every variant, as ordinary jobs."""
    from client import compare as commands

    settings = Settings()
    wanted = commands.Wanted(file, resume, cancel, report or (), as_json)
    raise SystemExit(commands.compare(settings.assistant_home, wanted, root_password=_root_password(settings)))


@app.command()
def ingress() -> None:
    """Serve the REST API."""
    from ingress.cluster import ClusterRefusesError
    from ingress.missing_setting import MissingSettingError
    from ingress.server import PortTakenError, serve_ingress
    from transport import logs

    settings = Settings()
    logs.set_up(debug=settings.debug_mode)
    try:
        serve_ingress(settings)
    except (PortTakenError, MissingSettingError, ClusterRefusesError) as error:
        _fail(error)


@app.command()
def worker(roles: Annotated[str, typer.Option(help="Any of: " + ", ".join(ROLES))] = ",".join(ROLES)) -> None:
    """Run stages of the pipeline until told to stop."""
    import uvloop

    from streams.errors import StartError
    from streams.worker import NameTakenError, Worker
    from transport import garbage, logs

    settings = Settings()
    logs.set_up(debug=settings.debug_mode)
    chosen = [role.strip() for role in roles.split(",") if role.strip()]
    if not chosen or not set(chosen) <= set(ROLES):
        _fail(f"unknown roles in {roles!r}: there are {', '.join(ROLES)}")
    garbage.collect_seldom()
    try:
        uvloop.run(Worker(settings, chosen).run())
    except (StartError, NameTakenError) as error:
        _fail(error)


Partitions = Annotated[int | None, typer.Option(help="At most so many per topic; as in topics.yaml where not given")]


@app.command()
def setup(partitions: Partitions = None) -> None:
    """Create or update the database's schema, the topics, and the first admin (ROOT_USR_PASS)."""
    from ingress.bootstrap import set_up
    from ingress.missing_setting import MissingSettingError
    from transport.admin import TopicsError

    try:
        asyncio.run(set_up(Settings(), partitions=partitions, report=partial(print, flush=True)))
    except (TopicsError, MissingSettingError, OSError) as error:
        _fail(error)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False) -> None:
    """Look at every part, say what is wrong and what to do; changes nothing, fails where something is wrong."""
    from doctor import commands

    problem = None
    try:
        settings = Settings()
    except VaultStoreError as error:
        settings, problem = SettingsWithoutVault(), str(error)
    raise SystemExit(commands.doctor(settings, as_json=as_json, vault_problem=problem))


@app.command()
def recover(
    postgres: Annotated[bool, typer.Option("--postgres", help="Rows of jobs, from the topics")] = False,
    kafka: Annotated[bool, typer.Option("--kafka", help="Unfinished jobs and users, from Postgres")] = False,
    webhooks: Annotated[bool, typer.Option("--webhooks", help="With --postgres: send webhooks again")] = False,
) -> None:
    """Bring back what one of the two has lost from what the other one has; see docs/recovery.md."""
    from recover import commands

    if postgres == kafka:
        _fail("say what was lost: --postgres or --kafka")
    raise SystemExit(commands.postgres(Settings(), webhooks=webhooks) if postgres else commands.kafka(Settings()))


@topics.command("plan")
def topics_plan(partitions: Partitions = None) -> None:
    """Show what `apply` would change."""
    _topics("plan", partitions)


@topics.command("apply")
def topics_apply(partitions: Partitions = None) -> None:
    """Create what is missing, set what differs."""
    _topics("apply", partitions)


@topics.command("check")
def topics_check(partitions: Partitions = None) -> None:
    """Fail where the cluster's topics are not as topics.yaml wants them."""
    _topics("check", partitions)


@topics.command("acls")
def topics_acls(
    roles: Annotated[str | None, typer.Option(help="Only of these, with commas; all otherwise")] = None,
    principal_prefix: Annotated[str, typer.Option(help="In front of a role's name")] = "assistant-",
    principal: Annotated[str | None, typer.Option(help="All of it for this one user, whatever the role")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Make them, as a Kafka user who may")] = False,
) -> None:
    """Print what each role may do, as lines for Kafka's own kafka-acls.sh; changes nothing without --apply."""
    from schemas.topics import Catalog
    from transport import acls

    settings = Settings()
    chosen = [role.strip() for role in roles.split(",") if role.strip()] if roles else acls.ROLES
    if unknown := [role for role in chosen if role not in acls.ROLES]:
        _fail(f"no such role: {', '.join(unknown)}; there are {', '.join(acls.ROLES)}")
    found = acls.acls(Catalog.load(prefix=settings.kafka_topic_prefix), settings.allowed_providers, chosen)
    if principal is not None:
        found, principal_prefix = acls.for_one(found, principal), ""
    if apply:
        _make_acls(settings, found, principal_prefix)
        return
    if as_json:
        print(json.dumps(acls.as_public(found, prefix=principal_prefix), indent=1))
        return
    there = settings.kafka_bootstrap_servers or "localhost:9092"
    for line in acls.as_commands(found, prefix=principal_prefix, bootstrap_servers=there):
        print(line)


def _make_acls(settings: Settings, found: "Sequence[Acl]", prefix: str) -> None:
    from transport import admin
    from transport.clients import KafkaAccess
    from transport.grants import grant

    if settings.kafka_bootstrap_servers is None:
        _fail("KAFKA_BOOTSTRAP_SERVERS is not set")
    access = KafkaAccess(settings.kafka_bootstrap_servers, settings.kafka_security)
    try:
        made = asyncio.run(grant(access, found, prefix=prefix))
    except admin.TopicsError as error:
        _fail(error)
    print(f"{made} ACLs are there now; none was taken away")


def _topics(verb: str, partitions: int | None) -> None:
    from schemas.topics import Catalog
    from transport import admin
    from transport.clients import KafkaAccess

    settings = Settings()
    if settings.kafka_bootstrap_servers is None:
        _fail("KAFKA_BOOTSTRAP_SERVERS is not set")
    access = KafkaAccess(settings.kafka_bootstrap_servers, settings.kafka_security)
    catalog = Catalog.load(prefix=settings.kafka_topic_prefix)
    do = admin.apply if verb == "apply" else admin.plan
    try:
        differences = asyncio.run(do(access, catalog, settings.allowed_providers, partitions=partitions))
    except admin.TopicsError as error:
        _fail(error)
    for difference in differences:
        print(difference)
    if not differences:
        print("every topic is as topics.yaml wants it")
    if verb == "check" and differences:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
