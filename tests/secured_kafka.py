"""A broker of our own with everything on: SASL by each mechanism, TLS, client certificates, ACLs, nobody by default.

Tokens are checked with the keys of `issuer`; a connection to `SHORT` ends with the token that it began with. The
validator is named, since the one that Kafka 4.1.1 takes by itself looks at no signature, issuer or audience.
"""

import os
import subprocess
from pathlib import Path

from typer.testing import CliRunner

import cli
from embedded import kafka, kafka_jars
from embedded.part import Part
from embedded.ports import HOST, free_port
from embedded.running import Running
from tests import oauth_issuer
from tests.certificates import Authority
from tests.oauth_issuer import Issuer
from transport import acls

PASSWORD = "scram-password"
PREFIX = "assistant-"
LISTENERS = ("INTERNAL", "SASL_SSL", "SSL", "SASL_PLAINTEXT", "EXPIRED", "SHORT")

PROPERTIES = """\
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
listener.security.protocol.map=INTERNAL:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,\
EXPIRED:SASL_SSL,SHORT:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INTERNAL
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:ANONYMOUS
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
listener.name.ssl.ssl.client.auth=required
listener.name.expired.ssl.keystore.location={expired}
listener.name.short.oauthbearer.connections.max.reauth.ms=60000
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN,OAUTHBEARER
sasl.oauthbearer.jwt.validator.class=org.apache.kafka.common.security.oauthbearer.BrokerJwtValidator
sasl.oauthbearer.jwks.endpoint.url={keys}
sasl.oauthbearer.expected.issuer={issuer}
sasl.oauthbearer.expected.audience={audience}
sasl.oauthbearer.clock.skew.seconds=2
"""
JAAS = """\
listener.name.{name}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{name}.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{name}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_assistant-gate="plain secret";
listener.name.{name}.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule \
required;
listener.name.{name}.oauthbearer.sasl.server.callback.handler.class=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
"""


class SecuredKafka:
    """Runs from `start` to `stop`. `INTERNAL` is the operator's own way in, as whom ACLs are set."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True)
        self.authority, self.stranger = Authority(home, "authority"), Authority(home, "stranger")
        self.issuer = Issuer(home)
        self._home, self._ports = home, {name: free_port() for name in LISTENERS}
        self._running: Running | None = None

    def address(self, listener: str) -> str:
        return f"{HOST}:{self._ports[listener]}"

    def start(self) -> None:
        jars = kafka_jars.ensure_jars(print)
        command = [kafka_jars.java(), *kafka.java_options(jars, print), "-cp", os.pathsep.join(map(str, jars))]
        config = self._home / "server.properties"
        config.write_text(self._properties())
        (self._home / "log4j2.yaml").write_text(kafka.LOG4J2)
        command.insert(1, f"-Dlog4j2.configurationFile={self._home / 'log4j2.yaml'}")
        command.insert(1, f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.issuer.keys.as_uri()}")
        users = [
            word
            for role in acls.ROLES
            for mechanism in ("SCRAM-SHA-512", "SCRAM-SHA-256")
            for word in ("--add-scram", f'{mechanism}=[name="{PREFIX}{role}",password="{PASSWORD}"]')
        ]
        done = subprocess.run(
            [*command, "kafka.tools.StorageTool", "format", "-t", "YXNzaXN0YW50LXN0cmVhbQ", "-c", str(config), *users],
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        part = Part(
            "kafka", [*command, "kafka.Kafka", str(config)], lambda: kafka.answers(self.address("INTERNAL")),
            env=dict(os.environ), stop_timeout_s=20.0, start_timeout_s=180.0,
        )  # fmt: skip
        self._running = Running(part, self._home / "kafka.log", bootstrap=self.address("INTERNAL"))
        self._running.start()

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()

    def _properties(self) -> str:
        plain = kafka.SERVER_PROPERTIES.format(
            host=HOST, port=0, controller_port=self._ports.setdefault("CONTROLLER", free_port()),
            data=self._home / "data",
        )  # fmt: skip
        ours = ("listeners=", "advertised.listeners=", "listener.security.protocol.map=")
        kept = [line for line in plain.splitlines() if not line.startswith(ours)]
        secured = PROPERTIES.format(
            listeners=",".join(f"{name}://{self.address(name)}" for name in LISTENERS),
            controller=self._ports["CONTROLLER"], keystore=self.authority.sign("broker").both,
            truststore=self.authority.file, expired=self.authority.sign("broker", days=(-9, -1)).both,
            keys=self.issuer.keys.as_uri(), issuer=oauth_issuer.NAME, audience=oauth_issuer.AUDIENCE,
        )  # fmt: skip
        logins = [JAAS.format(name=name) for name in ("sasl_ssl", "sasl_plaintext", "expired", "short")]
        return "\n".join([*kept, secured, *logins])

    def grant(self, prefix: str, providers: tuple[str, ...]) -> None:
        """What `assistant topics acls --apply` makes for topics of this prefix, called as the operator."""
        there = {
            "KAFKA_BOOTSTRAP_SERVERS": self.address("INTERNAL"), "KAFKA_TOPIC_PREFIX": prefix,
            "ALLOWED_PROVIDERS": ",".join(providers),
        }  # fmt: skip
        words = ["topics", "acls", "--apply", "--principal-prefix", PREFIX]
        done = CliRunner().invoke(cli.app, words, env=there)
        assert done.exit_code == 0, done.output

    def settings(self, role: str, listener: str = "SASL_SSL", **other: str) -> dict[str, str]:
        """The environment of a process of this role."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.address(listener),
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": PREFIX + role,
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "KAFKA_SSL_CAFILE": str(self.authority.file),
        } | other
