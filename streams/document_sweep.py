"""Deletes the vectors of documents that nobody sees any more, and then what is still known of them."""

import asyncio
import logging

from processors.documents.document_ports import VectorRepository
from processors.loops import repeat
from sinks.document_sweep import OldVersions

EVERY_S = 2.0
FORGET_EVERY = 15  # rounds


async def sweep_once(old: OldVersions, vectors: VectorRepository) -> int:
    """How many versions were cleared of their vectors."""
    await old.fail_ended()
    await old.settle()
    found = await old.with_vectors()
    for version in found:
        if version.collection is not None:
            await vectors.delete_version(version.user_id, version.collection, version.version_id)
        await old.without_vectors(version)
    return len(found)


async def sweep_documents(old: OldVersions, vectors: VectorRepository) -> None:
    """Until cancelled. Several may do it at once: to delete a version's vectors twice does no harm."""
    rounds = 0

    async def delete() -> None:
        nonlocal rounds
        while await sweep_once(old, vectors):
            await asyncio.sleep(0.1)  # others want both, too
        if rounds % FORGET_EVERY == 0:
            await old.forget()
        rounds += 1

    await repeat(delete, "sweeping documents", every_s=EVERY_S, level=logging.INFO)
