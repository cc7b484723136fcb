#!/usr/bin/env python3
"""The Transformers token-classification pipeline, measured round by round.

    python benches/peers/pipeline.py --model DIR --sentences FILE [--batch-size 32]

FILE is a JSON array of strings. Loads the model in fp32 with the pipeline's defaults, runs a warm-up over a part of the sentences, writes
the number of real word pieces of all sentences, and then for each line of stdin runs them all and writes
the seconds. `compare.py` drives it.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--sentences", required=True, type=Path)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()

    sentences = json.loads(arguments.sentences.read_text())
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForTokenClassification.from_pretrained(arguments.model, dtype=torch.float32)
    tagger = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first")
    pieces = sum(len(ids) for ids in tokenizer(sentences, add_special_tokens=False)["input_ids"])
    tagger(sentences[: 2 * arguments.batch_size], batch_size=arguments.batch_size)

    print(pieces, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        tagger(sentences, batch_size=arguments.batch_size)
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
