#!/usr/bin/env python3
"""Tokens per second of litflow and of the Transformers pipeline, side by side.

    python benches/peers/compare.py [--model DIR] [--rounds 5] [--tokens 30000] [--json]

Both get the same sentences and the same model directory and run in turns, one round each, so that a
busy machine hurts both; what counts is the ratio within a round. litflow is `cargo bench --bench
throughput` (built here if need be), the pipeline is fp32 with batches of 32 and otherwise its defaults
(`pip install -r benches/peers/requirements-pipeline.txt`). Tokens are real word pieces, without padding and special
tokens.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = [ROOT / "models/biored-minilm", ROOT / "encoders/standin-ner"]


class Paced:
    """A program that runs a round for each line it is given and answers with the seconds."""

    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.tokens = int(self.answer())

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with {self.process.wait()}")
        return line

    def round(self, line="round"):
        """Tokens per second of one round."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.tokens / float(self.answer())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=next((path for path in MODELS if path.exists()), None))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=30_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.model is None:
        parser.error("no model: name a directory with --model")
    model = arguments.model.resolve()

    with tempfile.TemporaryDirectory() as folder:
        sentences = Path(folder) / "sentences.json"
        bench = ["cargo", "bench", "--quiet", "--bench", "throughput", "--", "--paced"]
        ours = Paced("litflow", [*bench, "--model", model, "--tokens", str(arguments.tokens), "--dump-sentences", sentences])
        script = ROOT / "benches/peers/pipeline.py"
        theirs = Paced("the pipeline", [sys.executable, script, "--model", model, "--sentences", sentences])
        if ours.tokens != theirs.tokens:
            print(f"note: litflow counts {ours.tokens} word pieces, the pipeline {theirs.tokens}", file=sys.stderr)
        rounds = []
        for number in range(arguments.rounds):
            rounds.append({"engine": ours.round("engine"), "pipeline": theirs.round(), "tag": ours.round("tag")})
            print(f"round {number + 1}: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rounds[-1].items()), file=sys.stderr)
        ours.close()
        theirs.close()

    result = {"model": model.name, "cores": os.cpu_count(), "tokens": ours.tokens, "rounds": rounds}
    for name in ("engine", "tag"):
        ratios = [each[name] / each["pipeline"] for each in rounds]
        result[f"{name}_ratio"] = {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{model.name}: {ours.tokens} real tokens a round, {arguments.rounds} rounds, {os.cpu_count()} cores")
    print(f"{'':10}{'tokens/s (median)':>18}{'lowest':>10}{'highest':>10}{'x pipeline':>12}{'lowest':>8}{'highest':>8}")
    for name in ("pipeline", "engine", "tag"):
        rates = [each[name] for each in rounds]
        ratio = result.get(f"{name}_ratio")
        ratios = "" if ratio is None else f"{ratio['median']:12.1f}{ratio['lowest']:8.1f}{ratio['highest']:8.1f}"
        print(f"{name:10}{statistics.median(rates):18.0f}{min(rates):10.0f}{max(rates):10.0f}{ratios}")


if __name__ == "__main__":
    main()
