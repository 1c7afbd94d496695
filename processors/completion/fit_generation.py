"""What a provider can do of what was asked for: parameters that it has not are refused, or left out."""

from processors.ports import Capabilities
from schemas.generation import GenerationConfig

UNSUPPORTED = "unsupported-parameter"
OR_ELSE = ", or let it be left out with generation_config.strict=false"


def lacking(generation: GenerationConfig, parameters: frozenset[str]) -> tuple[str, ...]:
    """The parameters that are asked for and not there, by name, in the order of the contract."""
    return tuple(name for name in generation.named() if name not in parameters)


def refusal(provider: str, names: tuple[str, ...]) -> str:
    """Which ones, and what to do."""
    what = "parameter" if len(names) == 1 else "parameters"
    return (
        f"the provider {provider} does not have the {what} {', '.join(names)}: leave out what it does not have{OR_ELSE}"
    )


def fitted(generation: GenerationConfig, capabilities: Capabilities) -> tuple[GenerationConfig, tuple[str, ...]]:
    """What is left of it for this provider, and the names of what it has not; where strict, those are a refusal."""
    names = lacking(generation, capabilities.parameters)
    return (generation.without(names) if names else generation), names
