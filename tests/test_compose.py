"""The compose file is well formed, and every container in it is bounded and locked down."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from settings import Settings

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docker-compose.kafka.yml"
SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
ONE_SHOT = {"setup"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_bounded_unprivileged_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not str(service["user"]).startswith(("0", "root"))
    assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()
    assert ("healthcheck" in service) != (name in ONE_SHOT)
    assert all(not str(volume).startswith(("/", "./", "~")) for volume in service.get("volumes", []))


def test_the_product_is_all_there_and_closed_to_the_outside() -> None:
    assert {"kafka", "postgres", "qdrant", "vault", "setup", "ingress"} <= SERVICES.keys()
    assert {"worker-gate", "worker-completion", "worker-sink"} <= SERVICES.keys()
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 1
    assert published[0].startswith("127.0.0.1:")
    environment = SERVICES["ingress"]["environment"]
    assert (environment["PUBLIC_DOCS"], environment["PUBLIC_METRICS"]) == ("false", "false")


def test_a_plain_up_starts_every_part() -> None:
    assert not [name for name, service in SERVICES.items() if "profiles" in service]


def test_every_setting_reaches_the_containers() -> None:
    theirs = SERVICES["ingress"]["environment"].keys()
    not_theirs = {
        "DB_HOST", "DB_USER", "DB_PASS", "DB_NAME",  # DATABASE_URL is set
        "ROOT_USR_PASS",  # only for `setup`
        "WORKER_ID",  # the same one in two replicas would fence one of them
        "ASSISTANT_HOME",  # of the embedded parts
    }  # fmt: skip
    assert {name.upper() for name in Settings.model_fields} - theirs == not_theirs
    assert SERVICES["worker-gate"]["environment"]["WORKER_HTTP_HOST"] == "0.0.0.0"


def test_qdrant_has_a_key_that_all_who_ask_it_have_and_the_model_has_no_secret() -> None:
    key = SERVICES["qdrant"]["environment"]["QDRANT__SERVICE__API_KEY"]
    assert key.startswith("${QDRANT_API_KEY:?")
    for name in ("worker-retrieval", "worker-ingestion", "worker-sink", "ingress"):
        environment = SERVICES[name]["environment"]
        assert (environment["QDRANT_URL"], environment["QDRANT_API_KEY"]) == ("http://qdrant:6333", key)
    assert SERVICES["embeddings"]["environment"] == {}


def compose() -> list[str] | None:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker"):
        found = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=20, check=False)
        if found.returncode == 0:
            return ["docker", "compose"]
    return None


def composed() -> list[str]:
    """The command; skips where there is none, but fails there in CI."""
    command = compose()
    if command is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no docker-compose here: Debian's package docker-compose has it")
    return [*(command or []), "-f", str(FILE), "config"]


def test_docker_compose_hands_settings_on_and_leaves_out_what_nobody_set() -> None:
    given = {
        "JWT_SECRET_KEY": "x" * 40,
        "ROOT_USR_PASS": "y",
        "DB_PASS": "z",
        "QDRANT_API_KEY": "q",
        "MAX_RETRIES": "7",
    }
    clean = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    done = subprocess.run(composed(), env=clean | given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    environment = yaml.safe_load(done.stdout)["services"]["worker-completion"]["environment"]
    assert environment["MAX_RETRIES"] == "7"
    assert environment.get("LLM_TIMEOUT") is None  # no value, or not there: Docker then does not set it


def test_docker_compose_itself_takes_it_and_asks_for_what_is_missing() -> None:
    command = [*composed(), "-q"]
    given = {"JWT_SECRET_KEY": "x" * 40, "ROOT_USR_PASS": "y", "DB_PASS": "z", "QDRANT_API_KEY": "q"}
    clean = {name: value for name, value in os.environ.items() if name not in given}
    good = subprocess.run(command, env=clean | given, capture_output=True, text=True, timeout=60, check=False)
    assert good.returncode == 0, good.stderr
    for name in given:
        less = {other: value for other, value in given.items() if other != name}
        bad = subprocess.run(command, env=clean | less, capture_output=True, text=True, timeout=60, check=False)
        assert bad.returncode != 0
        assert name in bad.stderr
