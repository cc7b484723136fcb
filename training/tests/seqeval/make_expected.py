"""Makes expected.json: random BIO sequences and what seqeval says about them.

    pip install seqeval==1.2.2 && python make_expected.py > expected.json
"""

import json
import random

from seqeval.metrics import classification_report
from seqeval.scheme import IOB2

TYPES = ["CellLine", "Disease", "Gene"]


def sentence(rng, length):
    """Tags in valid IOB2."""
    tags = []
    while len(tags) < length:
        kind = rng.choice(TYPES + ["O"] * 3)
        if kind == "O":
            tags.append("O")
        else:
            tags += [f"B-{kind}"] + [f"I-{kind}"] * rng.choice([0, 0, 1, 2])
    return tags[:length]


def disturbed(rng, tags):
    """A prediction: the gold tags with errors, some of them invalid in IOB2."""
    labels = ["O"] + [f"{prefix}-{kind}" for kind in TYPES for prefix in "BI"]
    return [rng.choice(labels) if rng.random() < 0.2 else tag for tag in tags]


def case(rng):
    gold = [sentence(rng, rng.randint(1, 12)) for _ in range(rng.randint(1, 6))]
    predicted = [disturbed(rng, tags) for tags in gold]
    report = classification_report(gold, predicted, mode="strict", scheme=IOB2, output_dict=True, zero_division=0)
    scores = {
        name.removesuffix(" avg"): {
            "precision": float(row["precision"]),
            "recall": float(row["recall"]),
            "f1": float(row["f1-score"]),
            "support": int(row["support"]),
        }
        for name, row in report.items()
        if name != "weighted avg"
    }
    return {"types": TYPES, "gold": gold, "predicted": predicted, "report": scores}


def usable(case):
    """seqeval's averages also count a type that occurs only in invalid tags (an I- without its B-); ours do not."""
    begins = {tag[2:] for side in ("gold", "predicted") for tags in case[side] for tag in tags if tag[0] == "B"}
    return begins and begins == case["report"].keys() - {"micro", "macro"}


rng = random.Random(7)
cases = [found for found in (case(rng) for _ in range(60)) if usable(found)]
print("[")
print(",\n".join(json.dumps(found, separators=(",", ":")) for found in cases))
print("]")
