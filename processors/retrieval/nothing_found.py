"""What is answered where there is nothing to answer from: without asking a model, which would invent."""

from typing import Any, Literal

from schemas.events import RetrievalRequested

Why = Literal["no-documents", "nothing-relevant", "left-out"]
ANSWERS: dict[str, dict[Why, str]] = {
    "en": {
        "no-documents": "You have no documents here yet, so there is nothing to answer from. Add some with "
        "POST /ingestion/ingest, and ask again.",
        "nothing-relevant": "I found nothing in your documents that answers this question.",
        "left-out": "What I found in your documents for this question reads like instructions to me and not like "
        "information, so I have left it out. There is nothing else to answer from.",
    },
    "ru": {
        "no-documents": "У вас пока нет документов, поэтому отвечать не по чему. Загрузите их через "
        "POST /ingestion/ingest и спросите снова.",
        "nothing-relevant": "В ваших документах нет ничего, что отвечало бы на этот вопрос.",
        "left-out": "То, что нашлось в ваших документах по этому вопросу, похоже на указания для меня, а не на "
        "сведения, поэтому я это не использую. Больше отвечать не по чему.",
    },
}


def language_of(text: str) -> Literal["en", "ru"]:
    """Russian where most of its letters are Cyrillic; else English."""
    letters = [letter for letter in text if letter.isalpha()]
    cyrillic = sum("\u0400" <= letter <= "\u04ff" for letter in letters)
    return "ru" if cyrillic * 2 > len(letters) else "en"


def nothing_found(event: RetrievalRequested, question: str, why: Why, meta: dict[str, Any]) -> dict[str, Any]:
    """The result of a question that no model is asked."""
    return {
        "answer": ANSWERS[language_of(question)][why],
        "sources": [],
        "meta": {
            "provider": event.llm_provider, "job_id": str(event.job.job_id), "found": why,
            "citations": {"valid": 0, "removed": 0}, **meta,
        },
        "model": None,
        "usage": None,
    }  # fmt: skip
