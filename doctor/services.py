"""What answers: Kafka and its topics, Postgres, providers, the ingress, and the processes of `assistant up`."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import asyncpg
import httpx
from aiokafka.errors import KafkaError

from doctor.finding import Finding
from doctor.heartbeats import judge, newest_beats
from doctor.origins import without_credentials
from embedded.addresses import Addresses
from embedded.home import Home
from embedded.supervisor import EMBEDDED_PARTITIONS
from processors.errors import PermanentError, RetryableError
from schemas.topics import ONLY_SPEAKING, Catalog
from settings import Settings
from sinks.migrate import head_revision, revision
from streams.providers import configured, with_v1
from streams.speakers import addresses
from transport import admin
from transport.clients import KafkaAccess
from transport.start_check import SAFE_MIN_IN_SYNC, SAFE_REPLICAS, unencrypted
from vectors.opening import VectorsError, is_loopback, open_server, why_unfit

TIMEOUT_S, HTTP_TIMEOUT_S = 15.0, 3.0
NOT_STARTED = "nothing is set and nothing runs here"
SHOWN = 5


async def services(settings: Settings, there: Addresses) -> list[Finding]:
    """All of them at once; each bounded."""
    groups = await asyncio.gather(
        kafka(settings, there),
        postgres(there),
        vectors(settings, there),
        embeddings(settings, there),
        providers(settings, there),
        ingress(settings, there),
    )
    return [*processes(there), *secrets(settings), *(finding for group in groups for finding in group)]


def processes(there: Addresses) -> list[Finding]:
    """Those of `assistant up`, as its supervisor sees them."""
    if there.running is None:
        return [Finding("processes", "absent", "`assistant up` does not run here")]
    bad = [f"{part.name} is {part.state}" for part in there.running.parts if part.state != "ready"]
    if bad:
        return [Finding("processes", "wrong", ", ".join(bad), "see the logs in the home's folder logs")]
    restarts = sum(part.restarts for part in there.running.parts)
    return [Finding("processes", "ok", f"{len(there.running.parts)} are ready, {restarts} restarts")]


def secrets(settings: Settings) -> list[Finding]:
    """A deployment of its own needs a key of its own; `assistant up` makes one."""
    if settings.kafka_bootstrap_servers is None or settings.jwt_secret_key is not None:
        return []
    advice = "set it, the same for all processes, to the output of: openssl rand -base64 48"
    return [Finding("secrets", "wrong", "JWT_SECRET_KEY is not set", advice)]


async def kafka(settings: Settings, there: Addresses) -> list[Finding]:
    """The cluster, its topics, and who speaks on them."""
    if there.kafka is None:
        return [Finding("kafka", "absent", NOT_STARTED, "start it with `make up`, or set KAFKA_BOOTSTRAP_SERVERS")]
    access = KafkaAccess(there.kafka, settings.kafka_security)
    catalog = Catalog.load(prefix=settings.kafka_topic_prefix)
    own = settings.kafka_bootstrap_servers is None
    partitions = EMBEDDED_PARTITIONS if own else None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            cluster = await admin.describe(access, catalog, settings.allowed_providers)
            differences = await admin.plan(access, catalog, settings.allowed_providers, partitions=partitions)
    except (admin.TopicsError, KafkaError, OSError, TimeoutError) as error:
        if access.refusal:
            return [Finding("kafka", "wrong", f"{there.kafka} refuses us", access.refusal)]
        advice = "see the log of kafka" if own else "is KAFKA_BOOTSTRAP_SERVERS right, and open from here?"
        return [Finding("kafka", "wrong", f"{there.kafka} does not answer ({type(error).__name__})", advice)]
    found = f"{there.kafka}: {cluster.brokers} broker" + ("s" if cluster.brokers != 1 else "")
    found += f", {access.security.security_protocol}"
    weak = unencrypted(access.security, access.bootstrap_servers)
    findings = [
        Finding("kafka", "ok", f"{found}, Produce API up to version {cluster.produce_api}"),
        topics([str(difference) for difference in differences], count=len(cluster.copies)),
        replication(cluster, own=own),
        *(Finding("kafka security", "warning", sentence, "PRODUCTION=true refuses this") for sentence in weak),
    ]
    if any(copies.topic.endswith("worker-heartbeat") for copies in cluster.copies):
        try:
            async with asyncio.timeout(TIMEOUT_S):
                beats = await newest_beats(access, catalog.full_name("worker-heartbeat"))
            speaks = bool(_voices(settings, there))
            knows = bool(settings.qdrant_url or settings.qdrant_path or _part_here(there, "vectors"))
            trains = "local" in settings.allowed_providers or bool(settings.qwen3_vl_base_url)
            findings += judge(
                beats, expected=there.running is not None, speaks=speaks, knows=knows, trains=trains
            )  # fmt: skip
        except (KafkaError, OSError, TimeoutError) as error:
            findings.append(Finding("workers", "warning", f"heartbeats cannot be read ({type(error).__name__})"))
    return findings


def topics(differences: list[str], *, count: int) -> Finding:
    """As topics.yaml wants them, or not."""
    if not differences:
        return Finding("topics", "ok", f"{count}, as topics.yaml wants them")
    some = "; ".join(differences[:SHOWN]) + (
        f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
    )
    advice = "assistant topics apply; a number of partitions is mended by hand (assistant topics plan)"
    return Finding("topics", "wrong", some, advice)


def replication(cluster: admin.Cluster, *, own: bool) -> Finding:
    """Whether what is acknowledged outlives a broker. `own`: the embedded one, of which nobody asks that."""
    leaderless = [copies.topic for copies in cluster.copies if copies.in_sync == 0]
    if leaderless:
        return Finding(
            "replication", "wrong", f"nobody leads {', '.join(leaderless[:SHOWN])}", "bring the brokers back"
        )
    behind = [copies.topic for copies in cluster.copies if copies.in_sync < copies.replicas]
    if behind:
        advice = "is a broker down? Fewer copies than wanted are up to date"
        return Finding("replication", "warning", f"behind: {', '.join(behind[:SHOWN])}", advice)
    if own or not cluster.copies:
        return Finding("replication", "ok", "one broker, for this machine only")
    fewest = min(copies.replicas for copies in cluster.copies)
    least = min(copies.min_in_sync for copies in cluster.copies)
    found = f"at least {fewest} copies of each topic, min.insync.replicas {least}"
    if fewest < SAFE_REPLICAS or least < SAFE_MIN_IN_SYNC:
        advice = "in production: replication factor 3 and min.insync.replicas 2, racks apart"
        return Finding("replication", "warning", found, advice)
    return Finding("replication", "ok", found)


async def postgres(there: Addresses) -> list[Finding]:
    """The database, and its schema."""
    if there.postgres is None:
        return [Finding("postgres", "absent", NOT_STARTED, "start it with `make up`, or set DATABASE_URL")]
    where = without_credentials(there.postgres)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            version, has, wants = await _version(there.postgres), await revision(there.postgres), head_revision()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        advice = "is DATABASE_URL right, and the server up?"
        return [Finding("postgres", "wrong", f"{where} does not answer ({type(error).__name__})", advice)]
    findings = [Finding("postgres", "ok", f"{where}, version {version}")]
    if has == wants:
        return [*findings, Finding("schema", "ok", f"revision {has}")]
    found = f"revision {has}, this version wants {wants}" if has else "there is none"
    return [*findings, Finding("schema", "wrong", found, "run: assistant setup")]


async def _version(dsn: str) -> str:
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()


# What each is found by, beside its address: the path of its models, and what is missing where it is absent.
MODELS_PATHS = {"gemini": "/v1/models", "ollama": "/api/tags", "qwen3vl": "/", "qwen-tts": "/get_speakers"}
NEEDS = {
    "openai": "OPENAI_API_KEY", "gemini": "GEMINI_API_KEY", "ollama": "OLLAMA_BASE_URL",
    "lmstudio": "LMSTUDIO_BASE_URL", "qwen3vl": "QWEN3_VL_BASE_URL",
    "qwen-tts": "TTS_API_URL",
}  # fmt: skip


async def providers(settings: Settings, there: Addresses) -> list[Finding]:
    """Each that is allowed: whether it is set, and answers."""
    local = settings.local_base_url or _part_here(there, "model", "/v1")
    have = configured(settings.model_copy(update={"local_base_url": local, "local_embedding_url": None}))
    places = {
        "openai": (settings.openai_base_url, settings.openai_api_key),
        "gemini": (settings.gemini_base_url, settings.gemini_api_key),
        "ollama": (settings.ollama_base_url, None),
        "lmstudio": (with_v1(settings.lmstudio_base_url or ""), settings.lmstudio_api_key),
        "qwen3vl": (settings.qwen3_vl_base_url, None),
        "local": (local, None),
    }
    asked = []
    findings = []
    for name in settings.allowed_providers:
        if name in ONLY_SPEAKING:
            continue  # below
        if name in have:
            base_url, key = places[name]
            asked.append(provider(name, base_url or "", key.get_secret_value() if key else None))
        elif name == "local" and settings.local_embedding_url:
            findings.append(Finding("provider local", "absent", "it embeds and does not answer", "set LOCAL_BASE_URL"))
        elif name == "local":
            findings.append(Finding("provider local", "absent", NOT_STARTED, "start it with `make up`"))
        elif name in NEEDS:
            findings.append(Finding(f"provider {name}", "absent", f"{NEEDS[name]} is not set"))
        else:
            findings.append(Finding(f"provider {name}", "wrong", "there is none of this name", "see ALLOWED_PROVIDERS"))
    if not asked and "local" not in settings.allowed_providers:
        needed = ", ".join(NEEDS[name] for name in settings.allowed_providers if name in NEEDS.keys() - ONLY_SPEAKING)
        advice = f"set one of {needed}, or allow local: ALLOWED_PROVIDERS" if needed else "allow local, or another"
        findings.append(Finding("providers", "wrong", "none can be asked, so no job can be done", advice))
    return [*findings, *await asyncio.gather(*asked, *_speaking(settings, there))]


def _voices(settings: Settings, there: Addresses) -> dict[str, str]:
    """Addresses of those that speak: each that is allowed and has one, or runs here."""
    parts = there.running.parts if there.running else []
    here = next((part.http for part in parts if part.name == "speech"), None)
    return addresses(settings.model_copy(update={"local_speech_url": settings.local_speech_url or here}))


def _speaking(settings: Settings, there: Addresses) -> list[Coroutine[Any, Any, Finding]]:
    return [
        provider("qwen-tts", url, None, part=f"voice {name}")  # all of them have its API
        for name, url in _voices(settings, there).items()
    ]


def _part_here(there: Addresses, name: str, path: str = "") -> str | None:
    parts = there.running.parts if there.running else []
    return next((f"{part.http}{path}" for part in parts if part.name == name and part.http), None)


async def vectors(settings: Settings, there: Addresses) -> list[Finding]:
    """Qdrant, or what stands for it here."""
    url, key = settings.qdrant_url, settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
    if url is None:
        url, home = _part_here(there, "vectors"), Home(settings.assistant_home)
        key = home.secret("qdrant_api_key") if url else None
    if url is None:
        return [Finding("vectors", "absent", NOT_STARTED, "start it with `make up`, or set QDRANT_URL")]
    where = without_credentials(url)
    if wrong := why_unfit(url, has_key=key is not None, production=settings.production):
        return [Finding("vectors", "wrong", where, wrong)]
    try:
        repository = open_server(url, api_key=key, cacert=settings.qdrant_cacert)
    except VectorsError as error:
        return [Finding("vectors", "wrong", where, str(error))]
    try:
        await repository.answers()
    except RetryableError as error:
        return [Finding("vectors", "wrong", f"{where}: {error.message}", "is QDRANT_URL right, and the server up?")]
    except PermanentError as error:
        return [Finding("vectors", "wrong", f"{where}: {error.message}", "is QDRANT_API_KEY the server's?")]
    finally:
        await repository.close()
    if (unfit := why_unfit(url, has_key=key is not None, production=True)) and not is_loopback(url):
        return [Finding("vectors", "warning", where, unfit)]
    return [Finding("vectors", "ok", where)]


async def embeddings(settings: Settings, there: Addresses) -> list[Finding]:
    """The embedding server of the provider `local`."""
    if "local" not in settings.allowed_providers:
        return []
    url = settings.local_embedding_url or _part_here(there, "embeddings", "/v1")
    if url is None:
        return [Finding("embeddings", "absent", NOT_STARTED, "start it with `make up`, or set LOCAL_EMBEDDING_URL")]
    found = await provider("local", url, None)
    return [Finding("embeddings", found.state, found.found, found.advice)]


async def provider(name: str, base_url: str, key: str | None, *, part: str | None = None) -> Finding:
    """Ask it for its models, which costs nothing. `part`: what it is called; else by its name."""
    part, where = part or f"provider {name}", without_credentials(base_url)
    headers = {} if not key else {"x-goog-api-key": key} if name == "gemini" else {"authorization": f"Bearer {key}"}
    try:
        async with httpx.AsyncClient(timeout=HTTP_TIMEOUT_S, trust_env=False) as client:
            reply = await client.get(base_url.rstrip("/") + MODELS_PATHS.get(name, "/models"), headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        return Finding(part, "wrong", f"{where} does not answer ({type(error).__name__})", "is its address right?")
    if reply.status_code in (401, 403):
        return Finding(part, "wrong", f"{where} refuses the key ({reply.status_code})", "set another key")
    if reply.status_code != 200 and name != "qwen3vl":  # which lists no models: any answer is a good one
        return Finding(part, "warning", f"{where} answers {reply.status_code}", "jobs may fail at it")
    return Finding(part, "ok", where)


async def ingress(settings: Settings, there: Addresses) -> list[Finding]:
    """Whether it takes jobs."""
    running = there.running.ingress if there.running else None
    address = running or f"http://{settings.ingress_host}:{settings.ingress_port}"
    try:
        async with httpx.AsyncClient(timeout=HTTP_TIMEOUT_S, trust_env=False) as client:
            reply = await client.get(f"{address}/readyz")
            body: dict[str, Any] = reply.json()
    except (httpx.HTTPError, ValueError) as error:
        found = f"{address} does not answer ({type(error).__name__})"
        return [Finding("ingress", "wrong" if running else "absent", found, "start it: assistant ingress")]
    told = {**body.get("problems", {}), **body.get("warnings", {})}
    found = f"{address}: " + ("; ".join(f"{part}: {text}" for part, text in told.items()) or "ready")
    if reply.status_code != 200:
        return [Finding("ingress", "wrong", found, "it becomes ready by itself once these are mended")]
    return [Finding("ingress", "warning" if told else "ok", found)]
