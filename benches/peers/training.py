#!/usr/bin/env python3
"""Training speed of litflow and of Hugging Face Transformers, side by side.

    python benches/peers/training.py --data FILE [--encoder encoders/minilm-l6] [--rounds 3] [--batch-tokens 2048]

FILE is PubTator, BioRED for example. Both fine-tune the same encoder on its sentences for one epoch, in turns: litflow
by `litflow-train fit` (built by `cargo build --release`), Transformers by the usual loop: a token classifier with
softmax, fused AdamW, gradient clipping, batches of sentences of like length up to the same budget, bf16 autocast where
the CPU has it (`--precision fp32` switches it off on both sides). What counts are real word pieces a second over
training's steps, special tokens included, padding and evaluation left out
(`pip install -r benches/peers/requirements-pipeline.txt`).
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
TYPES = ["Gene", "Disease", "Chemical", "Species", "Variant", "CellLine"]


def litflow(arguments, recipe):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        command = [ROOT / "target/release/litflow-train", "fit", "--data", arguments.data, "--encoder", arguments.encoder]
        run = subprocess.run([*command, "--recipe", recipe, "--out", out], text=True, capture_output=True)
        rate = re.search(r"epoch 1/1 .* (\d+) pieces/s", run.stderr)
        # 3: done, but some annotations of the file were left out.
        if run.returncode not in (0, 3) or not rate:
            sys.exit(f"litflow-train ended with {run.returncode}: {run.stderr[-2000:]}")
        return float(rate[1])


def sentences(file):
    """Words and tags of the file's sentences, cut at full stops: near enough for a measure of speed."""
    titles, abstracts, spans = {}, {}, {}
    for line in file.read_text().splitlines():
        if match := re.match(r"(\d+)\|([ta])\|(.*)", line):
            (titles if match[2] == "t" else abstracts)[match[1]] = match[3]
        elif len(columns := line.split("\t")) >= 5 and columns[1].isdigit():
            spans.setdefault(columns[0], []).append((int(columns[1]), int(columns[2])))
    for id, title in titles.items():
        text = title + " " + abstracts.get(id, "")
        starts = {begin: end for begin, end in spans.get(id, [])}
        words, tags, end = [], [], -1
        for word in re.finditer(r"\w+|[^\w\s]", text):
            begins = word.start() in starts
            end = starts[word.start()] if begins else end
            words.append(word[0])
            tags.append(1 if begins else 2 if word.start() < end else 0)
            if word[0] == "." and text[word.end() : word.end() + 1] == " " and len(words) > 5:
                yield words, tags
                words, tags = [], []
        if words:
            yield words, tags


class Transformers:
    def __init__(self, arguments):
        self.tokenizer = AutoTokenizer.from_pretrained(arguments.encoder)
        self.arguments = arguments
        self.bf16 = arguments.precision != "fp32" and torch.cpu._is_avx512_bf16_supported()
        self.examples = [self.encode(words, tags) for words, tags in sentences(arguments.data)]

    def encode(self, words, tags):
        encoded = self.tokenizer(words, is_split_into_words=True, truncation=True, max_length=256)
        previous, labels = None, []
        for word in encoded.word_ids():
            labels.append(-100 if word is None or word == previous else tags[word])
            previous = word
        return encoded["input_ids"], labels

    def batches(self):
        """Of like length within pools of 16 batches, as litflow makes them."""
        order = random.sample(self.examples, len(self.examples))
        budget, pool, pieces, batches = self.arguments.batch_tokens, [], 0, []
        for at, example in enumerate(order):
            pool.append(example)
            pieces += len(example[0])
            if pieces >= 16 * budget or at + 1 == len(order):
                batch = []
                for example in sorted(pool, key=lambda example: len(example[0])):
                    if batch and (len(batch) + 1) * len(example[0]) > budget:
                        batches.append(batch)
                        batch = []
                    batch.append(example)
                batches.append(batch)
                pool, pieces = [], 0
        random.shuffle(batches)
        return batches

    def round(self):
        model = AutoModelForTokenClassification.from_pretrained(self.arguments.encoder, num_labels=2 * len(TYPES) + 1)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        batches = self.batches()
        started = time.perf_counter()
        for batch in batches:
            length = max(len(ids) for ids, _ in batch)
            pad = lambda values, value: torch.tensor([row + [value] * (length - len(row)) for row in values])
            ids, labels = pad([ids for ids, _ in batch], 0), pad([labels for _, labels in batch], -100)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return sum(len(ids) for batch in batches for ids, _ in batch) / (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, default=ROOT / "encoders/minilm-l6")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--precision", choices=["auto", "fp32"], default="auto")
    arguments = parser.parse_args()

    random.seed(1)
    theirs = Transformers(arguments)
    rounds = []
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as recipe:
        recipe.write(
            f'batch_tokens = {arguments.batch_tokens}\nprecision = "{arguments.precision}"\n'
            f"[data]\ntypes = {json.dumps(TYPES)}\n[[stages]]\nepochs = 1\n"
        )
        recipe.flush()
        for number in range(arguments.rounds):
            rounds.append((litflow(arguments, recipe.name), theirs.round()))
            print(f"round {number + 1}: litflow {rounds[-1][0]:.0f}, Transformers {rounds[-1][1]:.0f}", file=sys.stderr)
    ratios = sorted(ours / theirs for ours, theirs in rounds)
    print(f"{'':14}{'pieces/s (median)':>18}")
    print(f"{'litflow':14}{statistics.median(ours for ours, _ in rounds):18.0f}")
    print(f"{'Transformers':14}{statistics.median(theirs for _, theirs in rounds):18.0f}")
    print(f"ratio: median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
