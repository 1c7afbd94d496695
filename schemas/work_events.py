"""What a job is routed to where one call to a provider, or one row, is all that it takes."""

from schemas.agent_events import Decision
from schemas.document_events import Retrieved
from schemas.job_events import WorkEvent
from schemas.requests import ChatRequest, EmbeddingRequest, ExampleRequest, SpeechRequest, TrainingRequest


class CompletionRequested(WorkEvent):
    """A job's prompt is ready to be sent to a provider.

    `left_s`: what of `timeout_s` the providers before this one have left to it; `retrieved`: of a question to
    documents, what it is answered from; `decision`: of a query that might have been for an agent, why it is not.
    """

    provider: str
    request: ChatRequest
    left_s: float | None = None
    retrieved: Retrieved | None = None
    decision: Decision | None = None

    @property
    def work_s(self) -> float:
        """How long it may be worked on."""
        return self.timeout_s if self.left_s is None else self.left_s


class EmbeddingRequested(WorkEvent):
    """A job's texts are ready to be sent to a provider."""

    provider: str
    request: EmbeddingRequest


class SpeechRequested(WorkEvent):
    """A job's text is ready to be said by a provider."""

    provider: str
    request: SpeechRequest


class ExampleReceived(WorkEvent):
    """An example to learn from is to be kept."""

    request: ExampleRequest


class TrainingRequested(WorkEvent):
    """A provider's model is to learn from its user's examples."""

    provider: str
    request: TrainingRequest
