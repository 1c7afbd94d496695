"""Whether those who are asked for are there, and have what is asked of them: told before anything is published."""

from collections.abc import Callable, Mapping, Sequence

from ingress.http.problems import Problem
from ingress.voices import SpeechOffers
from processors.completion.fall_over import IMAGES_UNSUPPORTED
from processors.completion.fit_generation import UNSUPPORTED, lacking, refusal
from processors.completion.with_image import cannot_see
from processors.route_job import NO_SUCH_PROVIDER, no_vectors, not_present
from schemas.events import ProviderOffer
from schemas.generation import GenerationConfig
from schemas.requests import (
    AgentRequest,
    AnyRequest,
    ChatRequest,
    DocumentRequest,
    EmbeddingRequest,
    RagRequest,
    SearchRequest,
    SmartRequest,
    SpeechRequest,
    TrainingRequest,
)
from transport.workers import EMBEDDINGS

GENERATING = (ChatRequest, RagRequest, AgentRequest, SmartRequest)


def generation_of(request: AnyRequest) -> GenerationConfig | None:
    """How the answer is to be generated, of a request that has one."""
    return request.generation_config if isinstance(request, GENERATING) else None


class AskedProviders:
    """Looks at the providers that requests name, or leave to us."""

    def __init__(
        self, *, allowed: Sequence[str], present: Callable[[], Sequence[str]],
        offers: Callable[[], Mapping[str, Sequence[ProviderOffer]]], speech: SpeechOffers | None,
    ) -> None:  # fmt: skip
        """What is known.

        Args:
            allowed: Names that may be asked for.
            present: Those that live workers can reach.
            offers: What is known of them, by name.
            speech: Of those that speak; None: the stage will tell.
        """
        self._allowed, self._present, self._offers, self._speech = allowed, present, offers, speech

    def allows(self, provider: str) -> bool:
        """True for a name that may be asked for."""
        return provider in self._allowed

    def check(self, request: AnyRequest) -> None:
        """Raise Problem where a provider of the request's is not present, or has not what is asked of it."""
        wanted = request.providers
        if isinstance(request, SpeechRequest):
            if self._speech is not None:
                self._speech.check(request)
        elif not isinstance(request, TrainingRequest):  # whose provider `AdapterChecks` looks at
            self.check_named(wanted, generation_of(request))
        self._check_others(request)
        if isinstance(request, ChatRequest) and request.image is not None:
            self._check_sight(wanted)

    def check_named(self, wanted: Sequence[str], generation: GenerationConfig | None) -> None:
        """Raise Problem where one of the providers is not present, or has not what is asked of it."""
        present = self._present()
        there = [name for name in present if name in self._allowed]
        absent = [name for name in wanted if name not in (there if present else self._allowed)]
        if absent:
            raise Problem(400, NO_SUCH_PROVIDER, not_present(absent, there), providers=there)
        if generation is not None and generation.strict is not False:
            for name in wanted:
                self._check_parameters(name, generation)

    def _check_others(self, request: AnyRequest) -> None:
        """Who is named beside those that answer: makes vectors, or puts what was found in order."""
        if isinstance(request, RagRequest):
            self.check_named(list(filter(None, (request.embedding_provider, request.rerank_provider))), None)
            self._check_embeds(request.embedding_provider)
        elif isinstance(request, (EmbeddingRequest, SearchRequest, DocumentRequest)):
            self._check_embeds(request.provider)

    def _check_embeds(self, provider: str | None) -> None:
        """The router refuses it, too, but only after it was published; who does not tell what it can may be able to."""
        told = self._abilities()
        if provider is None or EMBEDDINGS in told.get(provider, (EMBEDDINGS,)):
            return
        there = [name for name, can in told.items() if EMBEDDINGS in can]
        raise Problem(400, NO_SUCH_PROVIDER, no_vectors([provider], there), providers=there)

    def _check_parameters(self, provider: str, generation: GenerationConfig) -> None:
        """The stage refuses them, too, but only after they were published; it also knows what is not named here."""
        offers = self._offers().get(provider)
        if not offers or not offers[0].parameters:
            return  # a worker that does not tell
        if names := lacking(generation, frozenset(offers[0].parameters)):
            raise Problem(400, UNSUPPORTED, refusal(provider, names), parameters=list(names))

    def _check_sight(self, wanted: Sequence[str]) -> None:
        """Whoever is named must see, each of them; of all that there are, one.

        The stage refuses it, too, but only once the image is stored; who does not tell what it can may see.
        """
        told = self._abilities()
        seeing = [name for name, can in told.items() if "images" in can]
        blind = [name for name in wanted or told if told.get(name) and name not in seeing]
        if not blind or (not wanted and len(blind) < len(told)):
            return
        named = f"the provider{'s' if len(blind) > 1 else ''} {', '.join(blind)}"
        who = named if wanted else "the providers that are present"
        raise Problem(400, IMAGES_UNSUPPORTED, cannot_see(who, seeing), providers=seeing)

    def _abilities(self) -> dict[str, tuple[str, ...]]:
        """What each provider can do, of those that tell."""
        offers = self._offers()
        return {name: offers[name][0].can for name in self._allowed if offers.get(name)}
