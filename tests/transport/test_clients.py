"""Every Kafka client of the product is opened with `KafkaAccess.options()`; Faust's are given the same."""

import ast
from pathlib import Path

import pytest
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from streams.app import StreamApp
from streams.credentials import credentials
from tests.certificates import Authority
from transport.clients import KafkaAccess
from transport.kafka_security import KafkaSecurity, KafkaSecurityError

ROOT = Path(__file__).parent.parent.parent
CLIENTS = {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient", "AIOKafkaClient"}
# They work on clusters of their own, which they have started.
NOT_THE_PRODUCT = {"tests", "bench", "chaos", ".venv", "build"}
OAUTH = {
    "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_url": "https://login.example/token",
    "sasl_oauth_client_id": "gate", "sasl_oauth_client_secret": "s",
}  # fmt: skip
SCRAM = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "gate", "sasl_password": "p"}


def calls() -> list[tuple[str, ast.Call]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if path.relative_to(ROOT).parts[0] in NOT_THE_PRODUCT:
            continue
        text = path.read_text()
        if not any(name in text for name in CLIENTS):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in CLIENTS:
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno} {name}", node))
    return found


CALLS = calls()


@pytest.mark.parametrize(("where", "call"), CALLS, ids=[where for where, _ in CALLS])
def test_a_client_is_opened_with_the_access(where: str, call: ast.Call) -> None:
    starred = [keyword.value for keyword in call.keywords if keyword.arg is None]
    options = [
        node for value in starred for node in ast.walk(value)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "options"
    ]  # fmt: skip
    assert options, f"{where} is opened without KafkaAccess.options(): it would speak PLAINTEXT to a cluster with TLS"


def test_there_are_clients_to_look_at() -> None:
    assert {where.partition("/")[0] for where, _ in CALLS} >= {"doctor", "embedded", "ingress", "recover", "streams"}


@pytest.mark.parametrize(
    "security",
    [
        {"security_protocol": "PLAINTEXT"},
        {"security_protocol": "SSL"},
        {"security_protocol": "SASL_SSL", **SCRAM},
        {"security_protocol": "SASL_PLAINTEXT", **SCRAM, "sasl_mechanism": "PLAIN"},
        {"security_protocol": "SASL_SSL", **OAUTH},
    ],
)
def test_faust_is_given_what_all_others_have(security: dict[str, str]) -> None:
    access = KafkaAccess("127.0.0.1:1", KafkaSecurity(**security))  # type: ignore[arg-type]
    given = access.options()
    theirs = credentials_to_aiokafka_auth(credentials(access))
    ours = {name: given[name] for name in given.keys() & theirs.keys()}
    assert {name: value for name, value in theirs.items() if value is not None} == (
        ours or {"security_protocol": "PLAINTEXT"}
    )
    assert given.keys() - {"bootstrap_servers", "request_timeout_ms"} <= theirs.keys()


async def test_an_app_of_ours_has_the_credentials() -> None:
    access = KafkaAccess("127.0.0.1:1", KafkaSecurity("SASL_SSL", "SCRAM-SHA-512", "gate", "p"))
    app = StreamApp("test", access, group="g")
    theirs = credentials_to_aiokafka_auth(app.conf.broker_credentials)
    assert (theirs["security_protocol"], theirs["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert app.producer._settings_auth() == theirs


def test_neither_password_nor_secret_is_in_what_is_printed() -> None:
    access = KafkaAccess("127.0.0.1:1", KafkaSecurity("SASL_SSL", "PLAIN", "gate", "the-password"))
    assert "the-password" not in repr(access)
    oauth = KafkaAccess("127.0.0.1:1", KafkaSecurity("SASL_SSL", **OAUTH | {"sasl_oauth_client_secret": "the-secret"}))  # type: ignore[arg-type]
    assert "the-secret" not in repr(oauth)


def test_files_that_cannot_be_used_are_told_by_their_variables(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    locked, other = authority.sign("locked", password="right"), authority.sign("other")
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    with pytest.raises(KafkaSecurityError, match="KAFKA_SSL_CAFILE"):
        KafkaAccess("h:1", KafkaSecurity("SSL", ssl_cafile=nothing))
    for certificate, key, password in (
        (locked.certificate, locked.key, None), (locked.certificate, locked.key, "wrong"),
        (other.certificate, locked.key, "right"), (nothing, nothing, None),
    ):  # fmt: skip
        with pytest.raises(KafkaSecurityError, match="KAFKA_SSL_KEYFILE"):
            KafkaAccess(
                "h:1",
                KafkaSecurity("SSL", ssl_certfile=certificate, ssl_keyfile=key, ssl_key_password=password),
            )
    good = KafkaSecurity("SSL", None, ssl_cafile=authority.file, ssl_certfile=locked.certificate,
                         ssl_keyfile=locked.key, ssl_key_password="right")  # fmt: skip
    context = KafkaAccess("h:1", good).options()["ssl_context"]
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"
