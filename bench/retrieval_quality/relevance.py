"""What is taken to be to the point: its bound is chosen on one half of the questions, and told on the other."""

from collections.abc import Sequence
from dataclasses import replace

from bench.retrieval_quality.corpus import MODEL, Corpus
from bench.retrieval_quality.manuals import Question
from processors.documents.document_ports import Found
from processors.retrieval.relevance import BOUNDS, Bounds, is_to_the_point

FIRST = 15  # of what is found, as `retrieve_context` looks at with five passages wanted
SURE = tuple(round(0.78 + step * 0.005, 3) for step in range(21))
# Questions to which no page has an answer, to see what is taken for one.
UNRELATED = (
    "What is the best recipe for borscht?", "Who won the football world cup in 1998?", "Why do cats purr?",
    "How do I renew my passport?", "Which vitamins are in oranges?", "How long do whales live?",
    "What is the capital of Mongolia?", "How often should tomatoes be watered?", "Who painted the Mona Lisa?",
    "How do I get red wine out of a carpet?", "Which muscles does swimming train?", "When did the Titanic sink?",
    "Как сварить борщ?", "Кто написал «Войну и мир»?", "Сколько лет живут слоны?", "Как получить загранпаспорт?",
    "Какая столица у Австралии?", "Как лечить простуду?", "Когда сажать картофель?", "Почему небо голубое?",
    "Как вывести пятно от вина?", "Сколько калорий в яблоке?", "Кто открыл Америку?", "Как научиться плавать?",
)  # fmt: skip
Answers = Sequence[tuple[Question, list[Found]]]


def tell_relevance(corpus: Corpus) -> None:
    """Print what of related and of unrelated questions is taken to be to the point."""
    related = [_answers(corpus, half) for half in corpus.halves()]
    asked = [Question("", "en" if text.isascii() else "ru", text) for text in UNRELATED]
    unrelated = [_answers(corpus, asked[0::2]), _answers(corpus, asked[1::2])]
    for name, found in (("related", [*related[0], *related[1]]), ("unrelated", [*unrelated[0], *unrelated[1]])):
        cosines = sorted(max((one.similarity or 0.0 for one in some), default=0.0) for _, some in found)
        tenths = " ".join(f"{cosines[round(tenth / 10 * (len(cosines) - 1))]:.3f}" for tenth in range(11))
        print(f"best cosines of {len(found)} {name} questions, by tenths: {tenths}")
    ours = BOUNDS[MODEL]
    chosen = max(SURE, key=lambda sure: (_gain(_moved(ours, sure), related[0], unrelated[0]), -sure))
    for name, bounds in (("the product's", ours), ("chosen on the first half", _moved(ours, chosen))):
        for half, told in enumerate(("tuned on", "held out")):
            print(
                f"from {bounds.sure:.3f}, {bounds.possible:.3f} with words ({name}), {told}: to the point are "
                f"{_count(bounds, related[half])} of {len(related[half])} related, "
                f"{_count(bounds, unrelated[half])} of {len(unrelated[half])} unrelated"
            )


def _answers(corpus: Corpus, asked: Sequence[Question]) -> list[tuple[Question, list[Found]]]:
    return [(question, corpus.found(question, None, mode="hybrid")[:FIRST]) for question in asked]


def _moved(bounds: Bounds, sure: float) -> Bounds:
    return replace(bounds, sure=sure, possible=round(sure - (bounds.sure - bounds.possible), 3))


def _gain(bounds: Bounds, related: Answers, unrelated: Answers) -> float:
    """The share of related ones that are taken, less that of unrelated ones (Youden's index)."""
    return _count(bounds, related) / len(related) - _count(bounds, unrelated) / len(unrelated)


def _count(bounds: Bounds, answers: Answers) -> int:
    return sum(any(is_to_the_point(one, question.text, bounds) for one in found) for question, found in answers)
