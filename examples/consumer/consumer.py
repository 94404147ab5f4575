#!/usr/bin/env python3
"""Reads podherald's events from Kafka, checks each against its JSON Schema, and handles each once.

    pip install -r requirements.txt
    podherald events --schema > events.schema.json
    python3 consumer.py --schemas events.schema.json --brokers localhost:9092

Kafka is not needed to see what it does with events, one JSON object a line:

    podherald explain pod.json | python3 consumer.py --schemas events.schema.json --lines

An event comes at least once. Its id is dropped the second time; the ids are remembered for as long as this process
lives, so whoever must never handle an event twice keeps them where the effect of handling is kept, in one transaction.
The offset is committed after an event was handled: what a crash interrupts comes again.
"""

import argparse
import collections
import json
import signal
import sys

import jsonschema

TOPICS = ["execution_events", "pod_events"]
GAP = "podherald.gap"
REMEMBERED_IDS = 100_000


class Invalid(Exception):
    """A message is no event of the contract."""


class Contract:
    """The document that `podherald events --schema` prints."""

    def __init__(self, document):
        names = [one["$ref"].rsplit("/", 1)[1] for one in document["oneOf"]]
        definitions = document["$defs"]
        formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
        self._validators = {
            name: jsonschema.Draft202012Validator(
                {"$ref": f"#/$defs/{name}", "$defs": definitions}, format_checker=formats
            )
            for name in names
        }

    def read(self, value):
        """The event in these bytes, or Invalid. A type that is not known is one of a later podherald: None."""
        try:
            event = json.loads(value)
        except ValueError as error:
            raise Invalid(f"it is not JSON: {error}") from error
        name = event.get("event_type") if isinstance(event, dict) else None
        if not isinstance(name, str):
            raise Invalid("it has no event_type")
        validator = self._validators.get(name)
        if validator is None:
            return None
        error = jsonschema.exceptions.best_match(validator.iter_errors(event))
        if error is not None:
            raise Invalid(f"{name}, {error.json_path}: {error.message}")
        return event


class Known:
    """The ids that were handled, up to a number; the oldest is forgotten first."""

    def __init__(self, limit=REMEMBERED_IDS):
        self._ids = collections.OrderedDict()
        self._limit = limit

    def __contains__(self, event_id):
        return event_id in self._ids

    def add(self, event_id):
        self._ids[event_id] = None
        if len(self._ids) > self._limit:
            self._ids.popitem(last=False)


class Consumer:
    """What is done with each message, wherever it comes from."""

    def __init__(self, contract, handle):
        self._contract = contract
        self._handle = handle
        self._known = Known()
        self.counts = collections.Counter()

    def take(self, value):
        """Handles one message; says what became of it: handled, repeated, unknown or invalid."""
        try:
            event = self._contract.read(value)
        except Invalid as error:
            # It will not get better by trying again. Who must not lose it puts it aside here, before the commit.
            print(f"invalid: {error}", file=sys.stderr)
            return self._count("invalid")
        if event is None:
            return self._count("unknown")
        if event["event_id"] in self._known:
            return self._count("repeated")
        self._handle(event)
        self._known.add(event["event_id"])
        return self._count("handled")

    def _count(self, what):
        self.counts[what] += 1
        return what


def show(event):
    """One line an event."""
    if event["event_type"] == GAP:
        # It belongs to no execution. Who must have everything asks podherald for it, or whoever ran the pods.
        missing = f"{event['missed']} events are missing, {event['first']} to {event['last']} of {event['source']}"
        return print(f"{event['timestamp']} {missing}", flush=True)
    outcome = ""
    if "exit" in event:
        code = event["exit"]["code"]
        outcome = f" code={'unknown' if code is None else code}"
    if "cause" in event:
        outcome += f" {event['cause']['class']}: {event['cause']['message']}"
    print(f"{event['timestamp']} {event['execution_id']}/{event['attempt']} {event['event_type']}{outcome}", flush=True)


def from_kafka(arguments, consumer):
    """Reads until SIGINT or SIGTERM."""
    from confluent_kafka import Consumer as Kafka, KafkaError, KafkaException

    properties = {
        "bootstrap.servers": arguments.brokers,
        "group.id": arguments.group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "partition.assignment.strategy": "cooperative-sticky",
    }
    properties.update(one.split("=", 1) for one in arguments.property)
    kafka = Kafka(properties)
    stopped = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.append(True))
    kafka.subscribe([arguments.prefix + topic for topic in TOPICS])
    try:
        while not stopped:
            message = kafka.poll(0.5)
            if message is None:
                continue
            if message.error():
                if message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART or message.error().retriable():
                    print(f"waiting: {message.error()}", file=sys.stderr)
                    continue
                raise KafkaException(message.error())
            consumer.take(message.value())
            try:
                kafka.commit(message, asynchronous=False)
            except KafkaException as error:
                # The group is being shared out anew: whoever gets the partition gets the event again.
                print(f"not committed: {error}", file=sys.stderr)
    finally:
        kafka.close()


def from_lines(consumer):
    """Reads standard input to its end."""
    for line in sys.stdin.buffer:
        if line.strip():
            consumer.take(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemas", required=True, type=argparse.FileType("rb"), help="what `podherald events --schema` prints")
    parser.add_argument("--lines", action="store_true", help="read lines from standard input instead of Kafka")
    parser.add_argument("--brokers", default="localhost:9092")
    parser.add_argument("--group", default="example-consumer")
    parser.add_argument("--prefix", default="", help="of the topics")
    parser.add_argument("--property", action="append", default=[], metavar="NAME=VALUE", help="of librdkafka")
    arguments = parser.parse_args()
    consumer = Consumer(Contract(json.load(arguments.schemas)), show)
    if arguments.lines:
        from_lines(consumer)
    else:
        from_kafka(arguments, consumer)
    print(", ".join(f"{count} {what}" for what, count in sorted(consumer.counts.items())), file=sys.stderr)
    return 1 if consumer.counts["invalid"] else 0


if __name__ == "__main__":
    sys.exit(main())
