"""What collections and points are called, in Qdrant."""

import json
import re
from hashlib import sha256
from uuid import UUID, uuid5

from processors.documents.document_ports import Collection

SLUG_CHARS = 60


def collection_name(namespace: str, collection: Collection) -> str:
    """For people, and never the same for two models: a slug, and a hash of what the slug leaves out."""
    whole = [collection.provider, collection.model, collection.dimensions]
    slug = re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, whole)).lower()).strip("-")[:SLUG_CHARS]
    digest = sha256(json.dumps(whole).encode()).hexdigest()[:10]
    return f"{namespace}chunks-{slug}-{digest}"


def is_ours(namespace: str, name: str) -> bool:
    """A collection of this deployment; in others there may be others."""
    return re.fullmatch(re.escape(namespace) + r"chunks-[a-z0-9-]+-[0-9a-f]{10}", name) is not None


def point_id(user_id: str, version_id: UUID, index: int) -> str:
    """Two users' points are never one, not even where somebody made their ids equal."""
    return str(uuid5(version_id, f"{index}/{user_id}"))
