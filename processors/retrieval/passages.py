"""What was found as passages for an answer: nothing twice, judged, and packed into the room that there is."""

from collections.abc import Sequence
from dataclasses import dataclass

from processors.completion.estimate_tokens import cut_to_tokens, estimate_tokens
from processors.documents.document_ports import Found
from processors.filter.normalize_text import clean
from processors.filter.prompt_policy import PromptPolicy
from schemas.events import Passage, Risk

OVERHEAD_TOKENS = 24  # of a passage's number, its source and its fence
LEAST_TOKENS = 40  # of a passage that is cut: less says nothing
SAME_FROM = 0.8  # of a chunk that others have already: it is not told again


@dataclass(frozen=True, slots=True)
class Judged:
    """Passages, and what the filter found in them. `left_out`: so many that were too risky; `risk`: the weightiest."""

    passages: tuple[Passage, ...]
    left_out: int
    risk: Risk | None


def distinct(found: Sequence[Found]) -> list[Found]:
    """Without chunks whose text others before them have."""
    kept: list[Found] = []
    texts: set[str] = set()
    for one in found:
        chunk = one.chunk
        length = max(1, chunk.end - chunk.start)
        same = sum(
            max(0, min(chunk.end, other.chunk.end) - max(chunk.start, other.chunk.start))
            for other in kept if other.version_id == one.version_id
        )  # fmt: skip
        if chunk.text not in texts and same / length < SAME_FROM:
            kept.append(one)
            texts.add(chunk.text)
    return kept


def scores_of(found: Sequence[Found]) -> list[float]:
    """Between 0 and 1, whatever the search's own are."""
    most = max((one.score for one in found), default=0.0)
    return [round(min(1.0, max(0.0, one.score / most if most > 1 else one.score)), 6) for one in found]


def judged(found: Sequence[Found], *, most: int, policy: PromptPolicy, refuse_from: float) -> Judged:
    """Passages without what others before them have told, invisible characters gone, each with its risk.

    Args:
        found: What is relevant, best first.
        most: Passages that are wanted; the others are not read.
        policy: How text that a model reads is judged.
        refuse_from: The risk from which a passage is left out; above 1: none is.
    """
    passages: list[Passage] = []
    left_out, weightiest = 0, None
    for place, (one, score) in enumerate(zip(found, scores_of(found), strict=True)):
        if len(passages) == most:
            break
        text = clean(_untold(one, found[:place]))
        if not text:
            continue
        verdict = policy.verdict(text)
        is_left_out = verdict.risk >= refuse_from
        is_told_of = is_left_out or verdict.action != "pass"
        if is_told_of and verdict.reason is not None and (weightiest is None or verdict.risk > weightiest.score):
            weightiest = Risk(
                score=verdict.risk, action="flag", reason=verdict.reason, rules=verdict.rules, where="passage"
            )  # fmt: skip
        if is_left_out:
            left_out += 1
            continue
        passages.append(
            Passage(
                index=len(passages) + 1,
                text=text,
                score=score,
                document_id=one.document_id,
                source=one.source,
                chunk=one.chunk.index,
                page=one.chunk.page,
                section=one.chunk.section,
                risk=verdict.risk,
            )
        )
    return Judged(tuple(passages), left_out, weightiest)


def packed(passages: Sequence[Passage], *, tokens: int) -> tuple[Passage, ...]:
    """As many as there is room for, whole ones; where not even the first fits, its beginning."""
    kept: list[Passage] = []
    left = tokens
    for passage in passages:
        needed = estimate_tokens(passage.text) + OVERHEAD_TOKENS
        if needed > left:
            break
        kept.append(passage)
        left -= needed
    if not kept and passages:
        text = cut_to_tokens(passages[0].text, max(LEAST_TOKENS, left - OVERHEAD_TOKENS))
        return (passages[0].model_copy(update={"text": text}),)
    return tuple(kept)


def _untold(one: Found, before: Sequence[Found]) -> str:
    """A chunk's text without what it has in common with chunks beside it that are told already."""
    chunk, text = one.chunk, one.chunk.text
    for other in before:
        if other.version_id != one.version_id:
            continue
        told = other.chunk
        head, tail = told.end - chunk.start, chunk.end - told.start
        if told.start <= chunk.start and 0 < head < len(text) and told.text.endswith(text[:head]):
            text = text[head:]
        elif told.end >= chunk.end and 0 < tail < len(text) and told.text.startswith(text[-tail:]):
            text = text[:-tail]
    return text.strip()
