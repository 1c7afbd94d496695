"""Every route of the API, in the order in which they are looked through: first what is called most."""

from ingress import (
    agents,
    api_keys,
    cancelling,
    chat,
    dead_letters,
    deleting,
    documents,
    examples,
    export,
    incidents,
    ingestion,
    jobs,
    login_failures,
    operations,
    payloads,
    providers,
    rag,
    search,
    smart,
    speech,
    streaming,
    training,
    user_admin,
    users,
    webhooks,
    workers,
)
from ingress.comparisons import compare
from ingress.openai_api import chat as openai_chat
from ingress.openai_api import embeddings as openai_embeddings
from ingress.openai_api import models as openai_models

ROUTERS = (
    chat.router, openai_chat.router, export.router, jobs.router, users.router, cancelling.router, deleting.router,
    webhooks.router, dead_letters.router, workers.router, providers.router, openai_models.router,
    openai_embeddings.router, streaming.router, operations.router, compare.router, payloads.router, api_keys.router,
    user_admin.router, login_failures.router, incidents.router, ingestion.router, documents.router, rag.router,
    search.router, speech.router, examples.router, training.router, agents.router, smart.router,
)  # fmt: skip
WITH_SHORTCUTS = (chat.router, openai_chat.router)
