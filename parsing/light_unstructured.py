"""`unstructured` without what it does not need to partition a file.

As it comes it loads spaCy (which it has no model for, and would download one), half a million English words, a language
guesser, an HTTP client and a telemetry call: 230 MB and 2 s. What they tell it is whether a paragraph is a "title" or
"narrative", in English; headings are taken from styles and tags here, so nothing of it is missed. The stand-ins below
are put in place before its first import; the tests read files of each type with them, and without a network.
"""

import re
import sys
from types import ModuleType
from typing import Any

_WORD = re.compile(r"\w+")


def put_in_place() -> None:
    """Must be called before `unstructured` is imported; again does nothing."""
    if "unstructured" in sys.modules:
        return
    _stand_in(
        "unstructured.nlp.tokenize",
        sent_tokenize=lambda text: [text],
        word_tokenize=_WORD.findall,
        pos_tag=lambda text: [(word, "VB") for word in _WORD.findall(text)[:1]],
    )
    _stand_in("unstructured.nlp.english_words", ENGLISH_WORDS=frozenset())
    _stand_in(
        "unstructured.telemetry",
        init_telemetry=lambda: None,
        partition_runtime_telemetry=lambda _name: _unchanged,
    )
    _stand_in("unstructured.partition.common.lang", apply_lang_metadata=lambda elements, **_: elements)
    _stand_in("unstructured.safe_http", safe_get=_no_network)
    _stand_in("unstructured.chunking", add_chunking_strategy=_unchanged)
    _stand_in("requests", get=_no_network)
    _stand_in("numpy", ndarray=object)


def _stand_in(name: str, **members: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def _unchanged(function: Any) -> Any:
    return function


def _no_network(*_: object, **__: object) -> None:
    raise RuntimeError("nothing is fetched here")
