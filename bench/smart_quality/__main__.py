"""`python -m bench.smart_quality`: how many of 200 labelled queries are told apart by rules alone, and which are not.

Where the rules are not sure, a model is asked; here what they would say then is counted, so a good model only adds.
"""

from bench.smart_quality import queries_held_out, queries_tuning
from processors.agents.classify_query import by_rules

SETS = {"tuning": queries_tuning, "held-out": queries_held_out}


def measured(name: str) -> tuple[float, float, list[tuple[str, str]]]:
    """Of a set: accuracy, the share that the rules are sure of, and what they get wrong with its label."""
    wrong, sure, total = [], 0, 0
    for label in ("SIMPLE", "COMPLEX"):
        for query in getattr(SETS[name], label):
            total += 1
            sure += by_rules(query) is not None
            decision = by_rules(query, must_decide=True)
            assert decision is not None
            if decision.kind != label:
                wrong.append((label, query))
    return (total - len(wrong)) / total, sure / total, wrong


if __name__ == "__main__":
    for name in SETS:
        accuracy, sure, wrong = measured(name)
        print(f"{name}: accuracy {accuracy:.3f}, sure of {sure:.2f}")
        for label, query in wrong:
            print(f"  {label}: {query!r}")
