#!/usr/bin/env python3
"""Compares sentence splitters on the treebank sentences of CRAFT.

    python benches/peers/sentences.py [--part held-out|development|all] [--corpora DIR] [--only NAME…] [--errors]

CRAFT's 97 full-text articles are split by a hash of their id into a development half and a held-out
half. The gold sentences are the trees of the Penn treebank: their leaves are aligned with the article's text
character by character, white space left out. Lines with a character that belongs to no tree (the front
matter, mostly) or to a sentence that goes on in another line are left out.

Two ways of feeding the same text:
  passages  each line (title, heading, paragraph, caption) on its own, as litflow does
  articles  all lines of an article, an empty line between them

Scores are micro-averaged over all articles. A boundary is the offset of the end of a sentence; "inner"
leaves out the ends of passages, which are given. "exact" counts sentences with both ends right.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


# --- gold ---------------------------------------------------------------------------------------

LEAF = re.compile(r"\(([^() ]+) ([^() ]+)\)")
ESCAPED = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


def is_development(article):
    return hashlib.sha256(article.encode()).digest()[0] % 2 == 0


def visible(text):
    """The characters that are no white space, and the offset of each."""
    offsets = [at for at, char in enumerate(text) if not char.isspace()]
    return "".join(text[at] for at in offsets), offsets


def gold_passages(text, trees):
    """[(line, [(begin, end), …])] for the lines of `text` that the trees cover."""
    shown, offsets = visible(text)
    spans, covered, at = [], [False] * len(shown), 0
    for tree in trees.splitlines():
        leaves = (ESCAPED.get(word, word) for tag, word in LEAF.findall(tree) if tag != "-NONE-")
        words = visible("".join(leaves))[0]
        found = shown.find(words, at) if words else -1
        # The first sentence comes after the front matter; later ones follow each other closely.
        if found < 0 or (spans and found - at > 5000):
            continue
        at = found + len(words)
        spans.append((offsets[found], offsets[at - 1] + 1))
        covered[found:at] = [True] * len(words)
    is_covered = dict(zip(offsets, covered))
    passages, begin = [], 0
    for line in text.split("\n"):
        end = begin + len(line)
        touching = [(a, b) for a, b in spans if a < end and b > begin]
        whole = all(begin <= a and b <= end for a, b in touching)
        if touching and whole and all(is_covered.get(at, True) for at in range(begin, end)):
            passages.append((line, [(a - begin, b - begin) for a, b in touching]))
        begin = end + 1
    return passages


def load(corpora, part):
    articles = {}
    for path in sorted((corpora / "craft/articles/txt").glob("*.txt")):
        article = path.stem
        if part != "all" and is_development(article) != (part == "development"):
            continue
        trees = corpora / f"craft/structural-annotation/treebank/penn/{article}.tree"
        articles[article] = gold_passages(path.read_text(), trees.read_text())
    return articles


# --- splitters: text → [(begin, end), …] in code points ------------------------------------------


def from_strings(text, sentences):
    """Offsets of sentences that a splitter gives as strings, found by their visible characters."""
    shown, offsets = visible(text)
    spans, at = [], 0
    for sentence in sentences:
        words = visible(sentence)[0]
        found = shown.find(words, at) if words else -1
        if found >= 0:
            at = found + len(words)
            spans.append((offsets[found], offsets[at - 1] + 1))
    return spans


def trimmed(text, spans):
    for begin, end in spans:
        sentence = text[begin:end]
        begin += len(sentence) - len(sentence.lstrip())
        end -= len(sentence) - len(sentence.rstrip())
        if begin < end:
            yield begin, end


def one_line_regex():
    boundary = re.compile(r"(?<=[.!?])\s+(?=[\[(\"']?[A-Z0-9])")
    return lambda texts: [from_strings(text, boundary.split(text)) for text in texts]


def blingfire():
    import blingfire

    def split(text):
        return from_strings(text, blingfire.text_to_sentences(text).split("\n")) if text.strip() else []

    return lambda texts: [split(text) for text in texts]


def sentencex():
    import sentencex

    return lambda texts: [from_strings(text, sentencex.segment("en", text)) for text in texts]


def syntok():
    import syntok.segmenter

    # Its offsets hold within a paragraph only, so it gets them one by one.
    def split(text):
        return [
            (at.start() + sentence[0].offset, at.start() + sentence[-1].offset + len(sentence[-1].value))
            for at in re.finditer(r"\S.*", text)
            for paragraph in syntok.segmenter.process(at.group())
            for sentence in paragraph
        ]

    return lambda texts: [split(text) for text in texts]


def pysbd():
    import pysbd

    segmenter = pysbd.Segmenter(language="en", clean=False)
    return lambda texts: [from_strings(text, segmenter.segment(text)) for text in texts]


def litflow():
    command = ["cargo", "run", "--quiet", "--example", "sentences", "--", "--jsonl", "-"]

    def split(texts):
        given = "".join(json.dumps(text) + "\n" for text in texts)
        done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return [[tuple(span) for span in json.loads(line)] for line in done.stdout.splitlines()]

    return split


SPLITTERS = {
    "litflow": litflow,
    "blingfire": blingfire,
    "sentencex": sentencex,
    "syntok": syntok,
    "pySBD": pysbd,
    "regex": one_line_regex,
}


# --- scores --------------------------------------------------------------------------------------


def f1(pairs):
    """Micro-averaged precision, recall, F1 of [(gold set, found set), …]."""
    right = sum(len(gold & found) for gold, found in pairs)
    found_count = sum(len(found) for _, found in pairs)
    gold_count = sum(len(gold) for gold, _ in pairs)
    precision, recall = right / max(found_count, 1), right / max(gold_count, 1)
    return precision, recall, 2 * right / max(found_count + gold_count, 1)


def ends(spans):
    return {end for _, end in spans}


def score(texts, gold, found):
    boundaries = [(ends(g), ends(f)) for g, f in zip(gold, found)]
    inner = [({e for e in g if text[e:].strip()}, {e for e in f if text[e:].strip()}) for text, (g, f) in zip(texts, boundaries)]
    return f1(boundaries), f1(inner), f1([(set(g), set(f)) for g, f in zip(gold, found)])


def as_articles(articles):
    """Each article's passages with an empty line between them, and the gold sentences in that text."""
    for passages in articles.values():
        text, gold = "", []
        for line, spans in passages:
            gold += [(begin + len(text), end + len(text)) for begin, end in spans]
            text += line + "\n\n"
        yield text, gold


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=["held-out", "development", "all"], default="held-out")
    parser.add_argument("--corpora", type=Path, default=ROOT.parent / "shared/corpora")
    parser.add_argument("--only", nargs="+", choices=SPLITTERS, default=list(SPLITTERS))
    parser.add_argument("--errors", action="store_true", help="print every wrong inner boundary (development only)")
    options = parser.parse_args()
    if options.errors and options.part != "development":
        sys.exit("--errors shows text: it is for --part development, the held-out articles are only scored")
    if not (options.corpora / "craft").is_dir():
        sys.exit(f"no CRAFT in {options.corpora}: name the folder that has it with --corpora")

    articles = load(options.corpora, options.part)
    passages = [passage for article in articles.values() for passage in article]
    feeds = {"passages": passages, "articles": list(as_articles(articles))}
    sentences = sum(len(spans) for _, spans in passages)
    print(f"CRAFT {options.part}: {len(articles)} articles, {len(passages)} passages, {sentences} sentences\n")
    for feed, pairs in feeds.items():
        texts, gold = [list(column) for column in zip(*pairs)]
        print(f"{feed:10}    boundary P       R      F1   inner P       R      F1  exact F1   seconds")
        for name in options.only:
            split = SPLITTERS[name]()
            began = time.perf_counter()
            found = [list(trimmed(text, spans)) for text, spans in zip(texts, split(texts))]
            seconds = time.perf_counter() - began
            boundary, inner, exact = score(texts, gold, found)
            figures = "".join(f"  {100 * value:6.2f}" for value in (*boundary, *inner, exact[2]))
            print(f"  {name:12}  {figures}   {seconds:8.1f}", flush=True)
            if options.errors:
                for text, g, f in zip(texts, map(ends, gold), map(ends, found)):
                    for at in sorted(g ^ f):
                        kind = "missed" if at in g else "extra "
                        print(f"{kind} {text[max(0, at - 70):at]!r} | {text[at:at + 50]!r}")
        print()


if __name__ == "__main__":
    main()
