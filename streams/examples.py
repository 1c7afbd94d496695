"""The stage of examples to learn from: example-received -> store_example -> job-finished."""

from functools import partial

from processors.store_example import store_example
from schemas.events import ExampleReceived
from schemas.topics import Catalog
from sinks.examples import ExampleStore
from streams.app import StreamApp
from streams.decode import decoder
from streams.made import Made
from streams.serve import StageServer, Stream

AT_ONCE = 8  # as many as the role has connections to Postgres


def declare_examples(app: StreamApp, server: StageServer, catalog: Catalog, made: Made) -> None:
    """In the role of the sinks, for Postgres is all that it needs."""
    if made.pool is None:
        return  # the role does not start without
    examples = ExampleStore(made.pool, max_per_user=made.settings.max_examples_per_user)
    received = app.lane(catalog.full_name("example-received"), "store_example", limit=AT_ONCE)
    stage = partial(store_example, examples=examples)

    @app.agent(received, name="store_example")
    async def store_example_agent(stream: Stream) -> None:
        await server.at_once(stream, decoder(ExampleReceived), stage, name="store_example", target="postgres")
