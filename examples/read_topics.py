"""Reads what litflow publishes, with nothing of litflow's but its schemas, and checks every offset.

    pip install confluent-kafka fastavro
    python3 examples/read_topics.py localhost:9092 annotations entities.Gene

Where a schema registry is used, SCHEMA_REGISTRY_URL says where its API begins.

One line a mention: topic, article id, type, begin, end, text. Without topics it reads `annotations` and all of
`entities.*`. Ends with 1 where a mention is not what its offsets select. It keeps the texts of all articles in
memory, so a large cluster wants a database in its place.
"""

import functools
import io
import json
import os
import pathlib
import sys
import urllib.request

import confluent_kafka
import fastavro
from fastavro.schema import fingerprint, load_schema, to_parsing_canonical_form

SCHEMAS = {}
for file in (pathlib.Path(__file__).parent.parent / "schemas").rglob("*.avsc"):
    schema = load_schema(file)
    SCHEMAS[bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))] = schema


@functools.cache
def registered(number):
    """The schema that a schema registry has given this id to."""
    with urllib.request.urlopen(f"{os.environ['SCHEMA_REGISTRY_URL']}/schemas/ids/{number}", timeout=30) as answer:
        return fastavro.parse_schema(json.loads(json.load(answer)["schema"]))


def decode(value):
    """A value in Avro single-object encoding (C3 01, fingerprint) or in Confluent's wire format (00, id)."""
    if value[:2] == b"\xc3\x01":
        if value[2:10] not in SCHEMAS:
            raise ValueError(f"no schema with the fingerprint {value[2:10].hex()}: add the .avsc it was written with")
        return fastavro.schemaless_reader(io.BytesIO(value[10:]), SCHEMAS[value[2:10]])
    if value[:1] == b"\x00":
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), registered(int.from_bytes(value[1:5], "big")))
    raise ValueError(f"begins with {value[:2].hex()}: neither C301 nor 00")


def read(servers, topic):
    """The committed messages of a topic, from its beginning to its present end."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "read-topics",  # asked for by the client; with assign() no group is joined
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    found = consumer.list_topics(topic, timeout=30).topics[topic]
    if found.error:
        raise confluent_kafka.KafkaException(found.error)
    beginning = confluent_kafka.OFFSET_BEGINNING
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, beginning) for partition in found.partitions])
    unfinished = set(found.partitions)
    while unfinished:
        message = consumer.poll(30)
        if message is None:
            raise TimeoutError(f"{topic}: nothing came for 30 s")
        if not message.error():
            yield message
        elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
            unfinished.discard(message.partition())
        else:
            raise confluent_kafka.KafkaException(message.error())
    consumer.close()


def passages(article):
    """What `passage` in a mention counts: the title, where there is one, then the passages."""
    title = [] if article["title"] is None else [article["title"]]
    return title + [passage["text"] for passage in article["passages"]]


def main(servers="localhost:9092", *topics):
    if not topics:
        everything = confluent_kafka.Consumer({"bootstrap.servers": servers, "group.id": "read-topics"}).list_topics()
        topics = ["annotations"] + sorted(name for name in everything.topics if name.startswith("entities."))
    texts = {}
    for message in read(servers, "articles"):
        if message.value() is not None:
            texts[message.partition(), message.offset()] = passages(decode(message.value()))

    mentions = wrong = 0
    for topic in topics:
        for message in read(servers, topic):
            if message.value() is None:
                print(topic, message.key().decode(), "deleted", sep="\t")
                continue
            record = decode(message.value())
            text_of_passage = texts.get((record["source"]["partition"], record["source"]["offset"]))
            for mention in record.get("mentions", [record]):
                begin, end = mention["begin"], mention["end"]
                print(topic, record["article_id"], mention["type"], begin, end, mention["text"], sep="\t")
                selected = []
                if text_of_passage:  # a raw document's text is not on the topic, and old articles leave it
                    selected.append(text_of_passage[mention["passage"]][begin:end])
                if mention.get("sentence_text") is not None:
                    start = mention["sentence_begin"]
                    selected.append(mention["sentence_text"][begin - start : end - start])
                mentions += 1
                wrong += any(text != mention["text"] for text in selected)
    print(f"{mentions} mentions, {wrong} of them not what their offsets select", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
