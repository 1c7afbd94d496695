"""A question to documents, from what a model is asked to what is answered; `generate_completion` asks it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from processors.completion.execution_around import ExecutionAround
from processors.filter.answer_policy import Sent
from processors.ports import Completion, CompletionRequest, Execution
from processors.retrieval.answer_links import LinkRules
from processors.retrieval.cite_sources import CitedText, Counts
from processors.retrieval.rag_prompt import rag_prompt
from schemas.events import CompletionRequested, Retrieved


class RagAnswer:
    """Of one event that has `retrieved`."""

    def __init__(self, event: CompletionRequested, retrieved: Retrieved, *, link_hosts: Sequence[str] = ()) -> None:
        """`link_hosts`: that links and images in the answer may lead to."""
        self._event, self._retrieved = event, retrieved
        self.instruction, self.prompt = rag_prompt(retrieved, event.job.job_id)
        known = "\n".join([retrieved.question, *(passage.text for passage in retrieved.passages)])
        self._links = LinkRules(link_hosts, known)

    def asked(self, request: CompletionRequest) -> CompletionRequest:
        """The request with the passages around its question."""
        return replace(request, prompt=self.prompt, instruction=self.instruction)

    def sent(self) -> Sent:
        """What the answer may repeat: the asker's own documents, and an instruction that is nobody's secret."""
        schema = self._event.request.generation_config.schema_text()
        texts = (passage.text for passage in self._retrieved.passages)
        return Sent(None, (self.prompt, self.instruction, *texts, schema))

    def checked(self, text: str) -> tuple[str, Counts]:
        """The answer without citations that point nowhere and links that lead outside."""
        cited = self._cited()
        told = cited.told(text) + cited.end()
        return told.lstrip(), cited.counts

    def telling(self, execution: Execution) -> "CitedExecution":
        """The same of an answer that is told piece by piece."""
        return CitedExecution(execution, self._cited())

    def body(self, completion: Completion, text: str, counts: Counts, meta: dict[str, Any]) -> dict[str, Any]:
        """The result of the job."""
        retrieved, usage = self._retrieved, completion.usage
        more: dict[str, Any] = {
            "citations": {"valid": counts.valid, "removed": counts.removed},
            "embedding": {"provider": retrieved.embedding_provider, "model": retrieved.embedding_model},
            "finish_reason": completion.finish_reason,
        }
        if counts.links:
            more["links_removed"] = counts.links
        if retrieved.left_out:
            more["left_out"] = retrieved.left_out
        return {
            "answer": text,
            "sources": sources_of(retrieved),
            "meta": {**meta, **more},
            "model": completion.model,
            "usage": {
                "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            }
            if usage
            else None,
        }  # fmt: skip

    def _cited(self) -> CitedText:
        return CitedText(len(self._retrieved.passages), self._links)


def sources_of(retrieved: Retrieved) -> list[dict[str, Any]]:
    """What the model was shown, by the numbers that it cites."""
    return [
        {
            "index": passage.index, "text": passage.text, "score": passage.score, "document": str(passage.document_id),
            "source": passage.source, "page": passage.page, "chunk": passage.chunk, "section": passage.section,
        }
        for passage in retrieved.passages
    ]  # fmt: skip


class CitedExecution(ExecutionAround):
    """See `Execution`. What is told of it is what its whole will be."""

    def __init__(self, execution: Execution, cited: CitedText) -> None:
        super().__init__(execution)
        self._cited, self._has_told = cited, False

    def told(self, text: str) -> str:
        """See `ExecutionAround.told`."""
        told = self._cited.told(text)
        if not self._has_told:
            told = told.lstrip()  # the whole begins with its first word
        self._has_told = self._has_told or bool(told)
        return told
