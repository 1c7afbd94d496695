"""`make bench-retrieval`: how well dense, keyword and hybrid search find the page that answers a question."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import get_args

from bench.retrieval_quality.corpus import Corpus, Embedder, document_of
from bench.retrieval_quality.manuals import Language, Question
from bench.retrieval_quality.relevance import tell_relevance
from bench.retrieval_quality.scores import ndcg, recall
from processors.documents.document_ports import Found
from schemas.requests import SearchMode
from vectors import fusion

MODES: tuple[SearchMode, ...] = ("dense", "keyword", "hybrid")
SIZES = (512, 256, 128)
WEIGHTS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)  # of keywords, in standard deviations of the cosines
Kind = tuple[str, Callable[[Question], Language | None]]
Find = Callable[[Question, Language | None], list[Found]]
Scored = dict[str, list[tuple[Question, float, float]]]
KINDS: tuple[Kind, ...] = (
    ("same language", lambda question: question.language),
    ("cross-lingual", lambda question: "ru" if question.language == "en" else "en"),
    ("both languages", lambda _: None),
)


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


def means(scored: Scored) -> tuple[float, float]:
    """Of all kinds together, recall@5 and nDCG@10."""
    every = [(hit, gain) for found in scored.values() for _, hit, gain in found]
    return fmean(hit for hit, _ in every), fmean(gain for _, gain in every)


def tune(corpus: Corpus) -> float:
    """The keywords' weight that is best, by both figures, on one half of the questions; all are told on both halves."""
    halves = corpus.halves()
    tuned: dict[float, float] = {}
    hybrid = partial(corpus.found, mode="hybrid")
    for weight in WEIGHTS:
        fusion.KEYWORD_WEIGHT = weight
        first, second = [means(scores(half, hybrid)) for half in halves]
        tuned[weight] = sum(first)
        print(f"keyword weight {weight}: recall@5 / nDCG@10 {first[0]:.3f} / {first[1]:.3f} tuned on, "
              f"{second[0]:.3f} / {second[1]:.3f} held out", flush=True)  # fmt: skip
    return max(tuned, key=lambda weight: tuned[weight])


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
            for told, asked in (("all", corpus.questions), ("held out", corpus.halves()[1])):
                scored = scores(asked, partial(corpus.found, mode=mode))
                hit, gain = means(scored)
                print(f"{mode}, {told} (recall@5, nDCG@10): {hit:.3f} {gain:.3f}")
                print("\n".join(rows_of(scored)), flush=True)
        tell_relevance(corpus)


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
