"""Whose model a name is: `provider/model`, or only `model` where no other provider has one of that name."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ingress.http.problems import Problem
from schemas.events import MAX_OFFERED_MODELS, ProviderOffer

MAX_TOLD = 10  # models in an error's message


@dataclass(frozen=True, slots=True)
class Model:
    """A model, and whose it is."""

    provider: str
    name: str


class Models:
    """What the live workers offer, by name."""

    def __init__(self, offers: Mapping[str, Sequence[ProviderOffer]], *, allows: Callable[[str], bool]) -> None:
        """`offers`: by provider, what each worker says of it; `allows`: True for one that may be asked."""
        self._allows = allows
        offered = {
            provider: list(dict.fromkeys(model for offer in told for model in _models(offer)))
            for provider, told in offers.items()
            if allows(provider)
        }
        # A provider that nobody could ask yet, or that has too many to tell, may have others.
        self._open = {
            provider
            for provider in offered
            if not any(offer.healthy and len(offer.models) < MAX_OFFERED_MODELS for offer in offers[provider])
        }
        self._present = frozenset(offered)
        every = [Model(provider, model) for provider, models in offered.items() for model in models]
        counts = Counter(model.name for model in every)
        bare = {model.name: model for model in every if counts[model.name] == 1}
        self._several = {name for name, count in counts.items() if count > 1}
        self.by_id: dict[str, Model] = bare | {f"{model.provider}/{model.name}": model for model in every}
        self._embedding = {
            Model(provider, offer.embedding_model)
            for provider in offered
            for offer in offers[provider]
            if offer.embedding_model
        }

    def find(self, name: str) -> Model:
        """The model of this name.

        Raises:
            Problem: There is none, there are several, or nobody knows yet.
        """
        found = self.by_id.get(name)
        if found is not None:
            return found
        provider, _, model = name.partition("/")
        if model and (provider in self._open or (self._allows(provider) and not self._present)):
            return Model(provider, model)
        if not self._present:
            detail = "no worker tells which models there are: name one as provider/model, or try again soon"
            raise Problem(503, "not-ready", detail, headers={"Retry-After": "2"})
        if name in self._several:
            whose = " or ".join(sorted(full for full in self.by_id if full.partition("/")[2] == name))
            raise Problem(404, "no-such-model", f"more than one provider has this model: say {whose}", param="model")
        there = ", ".join(sorted(f"{one.provider}/{one.name}" for one in set(self.by_id.values()))[:MAX_TOLD])
        detail = f"there is no such model; GET /v1/models lists those that there are, such as {there}"
        raise Problem(404, "no-such-model", detail, param="model")

    def find_embedding(self, name: str) -> Model:
        """The same among those that make vectors: of each provider the one that it is set to.

        Raises:
            Problem: As `find`.
        """
        found = self.find(name)
        if found in self._embedding or not self._present:
            return found
        there = ", ".join(sorted(f"{one.provider}/{one.name}" for one in self._embedding)) or "none"
        raise Problem(404, "no-such-model", f"this model makes no vectors here; those that do: {there}", param="model")


def _models(offer: ProviderOffer) -> Iterator[str]:
    yield from offer.models
    if offer.embedding_model:
        yield offer.embedding_model
