"""All events by name: what `topics.yaml` calls them, and the way in to the files beside this one that define them.

One frozen class per topic, with what travels in it. Unknown fields are ignored, so a producer may add optional ones
first; anything else is a new event and topic.
"""

from schemas.agent_events import AgentSpent, AgentState, AgentStep, AgentStepRequested, Decision, ToolCallRequested
from schemas.document_events import Chunk, ChunksPrepared, DocumentReceived, Passage, RetrievalRequested, Retrieved
from schemas.event_base import FOREVER, Event, ms_from_utc, utc_from_ms
from schemas.job_events import (
    Attempt,
    Job,
    JobAccepted,
    JobAdmitted,
    JobCancelRequested,
    JobError,
    JobEvent,
    JobFinished,
    JobRequested,
    PromptSanitized,
    RateLimit,
    RequestEvent,
    Risk,
    StageTiming,
    StreamedRange,
    WorkEvent,
)
from schemas.progress_events import (
    AgentProgress,
    CompletionStreamed,
    DocumentProgress,
    JobProgressed,
    TrainingProgressed,
)
from schemas.user_events import SecurityIncidentDetected, UserUpdated
from schemas.work_events import (
    CompletionRequested,
    EmbeddingRequested,
    ExampleReceived,
    SpeechRequested,
    TrainingRequested,
)
from schemas.worker_events import MAX_OFFERED_MODELS, ProviderOffer, StageLoad, WorkerHeartbeat

__all__ = (  # noqa: RUF022 in the order in which a job meets them
    # all of them
    "FOREVER", "Event", "utc_from_ms", "ms_from_utc",
    # every job
    "JobRequested", "StageTiming", "Risk", "Job", "JobEvent", "RequestEvent", "JobAccepted", "PromptSanitized",
    "RateLimit", "JobAdmitted", "Attempt", "WorkEvent", "StreamedRange", "JobError", "JobFinished",
    "JobCancelRequested",
    # one call to a provider, or one row
    "CompletionRequested", "EmbeddingRequested", "SpeechRequested", "ExampleReceived", "TrainingRequested",
    # documents and questions to them
    "DocumentReceived", "Chunk", "ChunksPrepared", "RetrievalRequested", "Passage", "Retrieved",
    # agents
    "Decision", "AgentStep", "AgentSpent", "AgentState", "AgentStepRequested", "ToolCallRequested",
    # on the way
    "DocumentProgress", "AgentProgress", "TrainingProgressed", "JobProgressed", "CompletionStreamed",
    # users
    "UserUpdated", "SecurityIncidentDetected",
    # workers
    "MAX_OFFERED_MODELS", "ProviderOffer", "StageLoad", "WorkerHeartbeat",
)  # fmt: skip
