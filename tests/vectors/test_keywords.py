import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectors.keywords import AVERAGE_WORDS, K1, document_vector, query_vector


def words(text: str) -> set[int]:
    return set(query_vector(text).indices)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dogs running", "DOG runs"),
        ("café", "cafe"),
        ("straße", "STRASSE"),
        ("ﬁne ｗｉｄｅ", "fine wide"),
        ("книга", "книгами"),
        ("ёлка", "елка"),
        ("كِتَاب", "كتاب"),
        ("don't", "don’t"),
    ],
)
def test_one_word_in_two_spellings_is_one(one: str, other: str) -> None:
    assert words(one) == words(other)


@pytest.mark.parametrize(
    ("query", "text", "stranger"),
    [
        ("大学", "北京大学的学生", "北京的学生"),
        ("カタカナ", "日本語とカタカナです", "日本語です"),
        ("ภาษา", "ฉันพูดภาษาไทย", "ฉันกินข้าว"),
        ("भाषा", "हिन्दी भाषा", "हिन्दी में"),
        ("invoice 4711", "the invoice 4711 of May", "a letter of 4712"),
    ],
)
def test_a_query_is_found_where_its_words_are_and_nowhere_else(query: str, text: str, stranger: str) -> None:
    assert words(query) <= set(document_vector(text).indices)
    assert not words(query) & set(document_vector(stranger).indices)


def test_the_commonest_words_count_for_nothing() -> None:
    assert words("the of and и в на") == set()
    assert document_vector("!!! ... —").indices == ()


def test_a_word_weighs_more_the_oftener_it_is_there_but_never_more_than_its_bound() -> None:
    weights = [document_vector("dog " * times + "cat " * (100 - times)) for times in (1, 2, 10, 90)]
    dog = [dict(zip(one.indices, one.values, strict=True))[next(iter(words("dog")))] for one in weights]
    assert dog == sorted(dog)
    assert dog[-1] < K1 + 1


def test_a_word_weighs_as_bm25_says() -> None:
    (weight,) = document_vector("dog dog dog").values
    norm = K1 * (0.25 + 0.75 * 3 / AVERAGE_WORDS)
    assert weight == pytest.approx(3 * (K1 + 1) / (3 + norm))


def test_every_word_of_a_query_counts_once() -> None:
    assert query_vector("dog dog cat").values == (1.0, 1.0)


def test_words_have_the_same_numbers_in_every_process() -> None:
    script = "from vectors.keywords import query_vector; print(query_vector('Hund книга 大学').indices)"
    runs = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {f"{query_vector('Hund книга 大学').indices}\n"}


def test_threads_do_not_disturb_each_other() -> None:
    samples = [f"running{n} dogs{n} книгами{n} nationally{n} قراءات{n}" for n in range(300)]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(query_vector, samples))
    from vectors.keywords import _word

    _word.cache_clear()
    assert at_once == [query_vector(sample) for sample in samples]


@given(st.text(max_size=300))
def test_any_text_gives_a_vector_that_qdrant_takes(text: str) -> None:
    vector = document_vector(text)
    assert list(vector.indices) == sorted(set(vector.indices))
    assert all(0 <= index < 2**32 for index in vector.indices)
    assert all(0 < value < K1 + 1 for value in vector.values)
    assert vector.indices == query_vector(text).indices


def test_a_chunk_takes_about_a_millisecond() -> None:
    chunk = " ".join(f"word{n % 170} слово{n % 90}" for n in range(150))[:2000]
    document_vector(chunk)
    began = time.process_time()
    for _ in range(100):
        document_vector(chunk)
    assert (time.process_time() - began) / 100 < 0.005  # some 0.4 ms here
