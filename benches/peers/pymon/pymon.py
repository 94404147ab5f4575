#!/usr/bin/env python3
"""pymon.py HOST:PORT: the usual Python monitor, one loop that watches pods, reads the log in line and publishes.

Kept as it is found in the field: the `kubernetes` client, `Watch().stream`, `read_namespaced_pod_log`. Added, to be fair: the
watch begins again after an error, pods that were there before count too, a pod's phase is published once. Events are held in
memory and served as server-sent events; there is no Kafka. KUBECONFIG says where the cluster is.
"""
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kubernetes import client, config, watch

events = []  # frames as they are sent; every reader keeps its own index
news = threading.Condition()
synced = threading.Event()  # with the first pod: the client does not tell where what was there ends


def publish(event):
    body = json.dumps({**event, "timestamp": time.time()})
    with news:
        events.append(f"id: {len(events) + 1}\ndata: {body}\n\n".encode())
        news.notify_all()


def ended(pods, pod):
    try:
        output = pods.read_namespaced_pod_log(pod.metadata.name, pod.metadata.namespace)
    except client.ApiException as error:
        output = f"(no log: {error.status})"
    codes = [s.state.terminated.exit_code for s in pod.status.container_statuses or [] if s.state.terminated]
    return {
        "event_type": "execution_completed" if pod.status.phase == "Succeeded" else "execution_failed",
        "execution_id": pod.metadata.labels["execution-id"],
        "exit_code": codes[0] if codes else None,
        "output": output,
    }


def monitor():
    pods, seen = client.CoreV1Api(), set()
    while True:
        try:
            for change in watch.Watch().stream(pods.list_pod_for_all_namespaces, label_selector="execution-id"):
                synced.set()
                pod = change["object"]
                look = (pod.metadata.uid, pod.status.phase)
                if change["type"] == "DELETED" or pod.status.phase == "Pending" or look in seen:
                    continue
                seen.add(look)
                if pod.status.phase == "Running":
                    publish({"event_type": "execution_running", "execution_id": pod.metadata.labels["execution-id"]})
                else:
                    publish(ended(pods, pod))
        except Exception as error:  # whatever it was: the watch is all there is
            print("watch begins again:", error, flush=True)
            time.sleep(1)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path not in ("/healthz", "/events"):
            return self.send_error(404)
        self.send_response(503 if path == "/healthz" and not synced.is_set() else 200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if path == "/healthz":
            return
        at = 0 if "last_event_id" in query else len(events)
        while True:
            with news:
                news.wait_for(lambda: len(events) > at)
                batch, at = events[at:], len(events)
            self.wfile.write(b"".join(batch))

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def handle_error(self, *_):
        """A reader that went away is no news."""


if __name__ == "__main__":
    host, port = sys.argv[1].split(":")
    config.load_kube_config()
    threading.Thread(target=monitor, daemon=True).start()
    Server((host, int(port)), Handler).serve_forever()
