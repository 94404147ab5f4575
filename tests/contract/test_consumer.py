"""The example consumer without Kafka: fed what `podherald explain` prints."""

import contextlib
import io
import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES / "consumer"))

import consumer  # noqa: E402

PODHERALD = os.environ["PODHERALD"]


def podherald(*arguments):
    return subprocess.run([PODHERALD, *map(str, arguments)], check=True, capture_output=True).stdout


def explained():
    inputs = sorted((EXAMPLES / "explain").glob("*.*"))
    lines = [podherald("explain", path, "--logs", EXAMPLES / "explain" / "logs").splitlines() for path in inputs]
    return [line for of_one in lines for line in of_one]


class ConsumerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.contract = consumer.Contract(json.loads(podherald("events", "--schema")))
        cls.events = explained()

    def setUp(self):
        self.handled = []
        self.consumer = consumer.Consumer(self.contract, self.handled.append)

    def take(self, value):
        self.said = io.StringIO()
        with contextlib.redirect_stderr(self.said):
            return self.consumer.take(value)

    def test_each_event_is_handled_once_however_often_it_comes(self):
        ids = {json.loads(line)["event_id"] for line in self.events}
        types = {json.loads(line)["event_type"] for line in self.events}
        self.assertGreater(len(types), 6, types)
        for line in self.events * 2:
            self.assertIn(self.take(line), ("handled", "repeated"), self.said.getvalue())
        self.assertEqual(sorted(event["event_id"] for event in self.handled), sorted(ids))

    def test_what_is_no_event_is_told_with_the_place_that_is_wrong(self):
        failed = next(line for line in self.events if b'"execution_failed"' in line)

        def changed(**fields):
            event = json.loads(failed) | fields
            return json.dumps({name: value for name, value in event.items() if value != "absent"})

        for value, said in [
            (b"\xff", "not JSON"),
            (b"[]", "no event_type"),
            (changed(event_type=7), "no event_type"),
            (changed(exit={"code": "3", "signal": None, "source": "kubelet"}), "$.exit.code"),
            (changed(event_id="one"), "$.event_id"),
            (changed(timestamp="noon"), "$.timestamp"),
            (changed(event_version="2.0"), "$.event_version"),
            (changed(cause="absent"), "'cause' is a required property"),
        ]:
            self.assertEqual(self.take(value), "invalid", value)
            self.assertIn(said, self.said.getvalue())
        self.assertEqual(self.handled, [])

    def test_a_later_podherald_may_say_more(self):
        event = json.loads(self.events[0]) | {"mood": "good"}
        self.assertEqual(self.take(json.dumps(event)), "handled")
        self.assertEqual(self.take(json.dumps(event | {"event_type": "weather_changed"})), "unknown")

    def test_a_gap_is_handled_once_too(self):
        gap = {
            "event_id": "00000000-0000-0000-0000-000000000001", "event_type": "podherald.gap", "event_version": "1.0",
            "timestamp": "2026-03-01T12:00:02.500000Z", "source": "podherald:x", "sink": "kafka", "missed": 3, "first": 8, "last": 10,
        }  # fmt: skip
        self.assertEqual([self.take(json.dumps(gap)) for _ in range(2)], ["handled", "repeated"])
        self.assertEqual(self.take(json.dumps(gap | {"missed": 0})), "invalid")
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            consumer.show(self.handled[0])
        self.assertIn("3 events are missing, 8 to 10 of podherald:x", shown.getvalue())

    def test_what_could_not_be_handled_is_not_known(self):
        def fail(event):
            raise OSError("no room")

        self.consumer = consumer.Consumer(self.contract, fail)
        for _ in range(2):
            with self.assertRaises(OSError):
                self.take(self.events[0])

    def test_only_so_many_ids_are_remembered(self):
        known = consumer.Known(limit=2)
        for event_id in "abc":
            known.add(event_id)
        self.assertEqual([event_id in known for event_id in "abc"], [False, True, True])

    def test_it_reads_lines(self):
        schemas = ROOT / "openapi" / "events.schema.json"
        run = subprocess.run(
            [sys.executable, EXAMPLES / "consumer" / "consumer.py", "--schemas", schemas, "--lines"],
            input=b"\n".join([*self.events, b"{}"]),
            capture_output=True,
        )
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertIn(f"{len(self.events)} handled, 1 invalid", run.stderr.decode())
        self.assertEqual(len(run.stdout.splitlines()), len(self.events))


if __name__ == "__main__":
    unittest.main()
