"""`make bench-retrieval`: how well dense, keyword and hybrid search find the page that answers a question."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import get_args

from bench.retrieval_quality.corpus import MODEL, Corpus, Embedder, document_of
from bench.retrieval_quality.manuals import Language, Question
from bench.retrieval_quality.scores import ndcg, recall
from processors.document_ports import Found
from processors.relevance import BOUNDS, is_to_the_point
from schemas.requests import SearchMode
from vectors import fusion

MODES: tuple[SearchMode, ...] = ("dense", "keyword", "hybrid")
SIZES = (512, 256, 128)
WEIGHTS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)  # of keywords, where the vectors' is 1
Kind = tuple[str, Callable[[Question], Language | None]]
Find = Callable[[Question, Language | None], list[Found]]
Scored = dict[str, list[tuple[Question, float, float]]]
KINDS: tuple[Kind, ...] = (
    ("same language", lambda question: question.language),
    ("cross-lingual", lambda question: "ru" if question.language == "en" else "en"),
    ("both languages", lambda _: None),
)
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


def rows_of(scored: Scored) -> Iterator[str]:
    """A line for each kind of question, and for all."""
    for name, found in scored.items():
        for language in (None, *get_args(Language)):
            part = [(hit, gain) for question, hit, gain in found if language in (None, question.language)]
            yield f"{name:>16} {language or 'all':>4} {len(part):>4} {fmean(h for h, _ in part):.3f} " + (
                f"{fmean(g for _, g in part):.3f}"
            )


def scores(asked: list[Question], find: Find) -> Scored:
    """By kind, of each question its recall@5 and nDCG@10."""
    scored: Scored = {}
    for name, language_of in KINDS:
        for question in asked:
            language = language_of(question)
            ranked = list(dict.fromkeys(one.document_id for one in find(question, language)))
            right = {document_of(question.page, one) for one in ([language] if language else get_args(Language))}
            scored.setdefault(name, []).append((question, recall(ranked, right), ndcg(ranked, right)))
    return scored


def mean(scored: Scored) -> float:
    """Of all kinds together, nDCG@10."""
    return fmean(gain for found in scored.values() for _, _, gain in found)


def tune(corpus: Corpus) -> float:
    """The keywords' weight that is best on the questions to every other page; all weights on both halves are told."""
    place = {page: number % 2 for number, page in enumerate(corpus.pages)}
    halves = [[question for question in corpus.questions if place[question.page] == half] for half in (0, 1)]
    tuned: dict[float, float] = {}
    hybrid = partial(corpus.found, mode="hybrid")
    for weight in WEIGHTS:
        fusion.KEYWORD_WEIGHT = weight
        tuned[weight], held_out = [mean(scores(half, hybrid)) for half in halves]
        print(f"keyword weight {weight}: nDCG@10 {tuned[weight]:.4f} tuned on, {held_out:.4f} held out", flush=True)
    return max(tuned, key=lambda weight: tuned[weight])


def relevance(corpus: Corpus) -> None:
    """What of related and of unrelated questions is taken to be to the point."""
    bounds = BOUNDS[MODEL]

    def best(question: Question) -> tuple[float, bool]:
        found = corpus.found(question, None, mode="hybrid")
        similarity = max((one.similarity or 0.0 for one in found), default=0.0)
        return similarity, any(is_to_the_point(one, question.text, bounds) for one in found[:15])

    sets = {"related": corpus.questions, "unrelated": [Question("", "en", text) for text in UNRELATED]}
    for name, asked in sets.items():
        found = [best(question) for question in asked]
        cosines = sorted(similarity for similarity, _ in found)
        tenths = " ".join(f"{cosines[round(tenth / 10 * (len(cosines) - 1))]:.3f}" for tenth in range(11))
        print(f"{name}: {sum(is_one for _, is_one in found)} of {len(found)} to the point; best cosines {tenths}")


def measure(given: argparse.Namespace) -> None:
    """Print all of it."""
    embedder = Embedder(given.cache)
    roots: dict[Language, Path] = {"en": given.english, "ru": given.russian}
    for size in given.sizes:
        corpus = Corpus(embedder, roots, pages=given.pages)
        corpus.store(size, size // 8)
        print(f"\nchunks of {size} tokens: {corpus.chunks} of {len(corpus.pages)} pages in two languages, "
              f"{corpus.tokens} tokens, {len(corpus.questions)} questions", flush=True)  # fmt: skip
        if given.tune and size == given.sizes[0]:
            fusion.KEYWORD_WEIGHT = tune(corpus)
        for mode in MODES:
            scored = scores(corpus.questions, partial(corpus.found, mode=mode))
            print(f"{mode} (recall@5, nDCG@10): {mean(scored):.4f}")
            print("\n".join(rows_of(scored)), flush=True)
        relevance(corpus)


def main() -> None:
    """As the command line says."""
    parser = argparse.ArgumentParser(prog="bench.retrieval_quality", description=__doc__)
    parser.add_argument("--english", type=Path, default=Path("/usr/share/man"), help="manuals of the package manpages")
    parser.add_argument("--russian", type=Path, default=Path("/usr/share/man/ru"), help="those of manpages-ru")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="tokens of a chunk")
    parser.add_argument("--tune", action="store_true", help="look for the keywords' weight at the first size, too")
    parser.add_argument("--pages", type=int, default=1_000, help="so many of them, for a quicker look")
    cache = Path(tempfile.gettempdir()) / "assistant-bench-vectors"
    parser.add_argument("--cache", type=Path, default=cache, help="where vectors are kept for the next time")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
