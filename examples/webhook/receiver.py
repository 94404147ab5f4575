"""Takes podherald's webhooks: verifies each signature (Standard Webhooks), drops what it knows, prints the rest.

    WEBHOOK_SECRET=whsec_... python3 examples/webhook/receiver.py [PORT]

Nothing but Python's own library is needed. It listens on loopback.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 5 * 60
MAX_BODY_BYTES = 32 << 20


def is_genuine(keys, headers, body):
    """True if one of the signatures was made with one of the keys, and lately: who has seen a request cannot repeat it for ever."""
    event_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    signed = f"{event_id}.{timestamp}.".encode() + body
    right = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
    given = [part[3:] for part in headers.get("webhook-signature", "").split() if part.startswith("v1,")]
    return any(hmac.compare_digest(one, other) for one in right for other in given)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    keys = []
    # A real receiver keeps them where it keeps what it makes of the events, in the same transaction.
    known = set()

    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        # Not 400: that would say that this one event is wrong, and podherald would leave it out in the end.
        if not is_genuine(self.keys, self.headers, body):
            return self.answer(401)
        event_id = self.headers["webhook-id"]
        if event_id not in self.known:
            event = json.loads(body)
            # In binary mode the body is the event itself, and the attributes are headers `ce-*`.
            event = event["data"] if "specversion" in event else event
            # A gap (`podherald.gap`) is of no execution: so many events were gone before they could be sent.
            about = event.get("execution_id") or f"{event['missed']} events are missing"
            print(about, event["event_type"], json.dumps(event.get("exit")), flush=True)
            self.known.add(event_id)
        # Only now: what is acknowledged does not come again.
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    secrets = os.environ["WEBHOOK_SECRET"].split()
    Receiver.keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    ThreadingHTTPServer(("127.0.0.1", port), Receiver).serve_forever()
