"""Google's metadata server and Cloud TPU API on loopback: real HTTP, nodes that live and die, faults on demand.

The description that the client builds its methods from is the real one, with this server as its root.
"""
from __future__ import annotations

import collections
import json
import os
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from googleapiclient import discovery_cache

PROJECT, ZONE = "fake-project", "us-central1-b"
NO_ROOM = "There is no more capacity in the zone"
NODE_PATH = re.compile(r"/v1/(projects/([^/]+)/locations/([^/]+)/nodes)(?:/([^/?]+))?")


class Fault:
    """What happens to requests in the place of an answer: an HTTP status, "hang", "reset", "garbage" or "cut" short."""

    def __init__(self, kind, times, message):
        self.kind, self.left, self.message = kind, times, message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, content):
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/text" if isinstance(content, str) else "application/json")
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, message):
        self.answer(status, {"error": {"code": status, "message": message, "status": "X"}})

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        api = self.server.api
        if path.startswith("/computeMetadata") or path == "/":
            return self.metadata(path)
        if path == "/discovery/tpu/v1":
            return self.answer(200, api.description())
        node_path = NODE_PATH.fullmatch(path)
        if "/operations/" in path:
            return self.answer(200, {"done": True, "error": {"code": 8, "message": NO_ROOM}})
        if not node_path:
            return self.refuse(404, f"no such path {path}")
        api.requests[self.command] += 1
        fault = api.fault(self.command, node_path.group(3))
        if fault:
            return self.fail(fault)
        if self.headers.get("Authorization") != "Bearer " + api.token:
            return self.refuse(401, "Request had invalid authentication credentials.")
        return self.answer(*api.handle(self.command, node_path, self.path.partition("?")[2], body and json.loads(body)))

    do_POST = do_DELETE = do_GET

    def metadata(self, path):
        api = self.server.api
        if api.silent:
            return api.ended.wait(60)
        known = {"/": "computeMetadata/", "/computeMetadata/v1/project/project-id": PROJECT,
                 "/computeMetadata/v1/instance/zone": f"projects/12/zones/{ZONE}"}
        if path in known:
            return self.answer(200, known[path])
        if path.endswith("/token"):
            return self.answer(200, {"access_token": api.token, "expires_in": 3600, "token_type": "Bearer"})
        return self.answer(200, {"email": "x@y", "scopes": [], "aliases": ["default"]})

    def fail(self, fault):
        if fault.kind == "hang":
            self.server.api.ended.wait(60)
        elif fault.kind == "garbage":
            self.answer(200, "<html>")
        elif fault.kind == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
        elif fault.kind != "reset":
            return self.refuse(fault.kind, fault.message)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # clients that give up


class FakeTpuApi:
    """Context manager.  `nodes` {(zone, name): node} may be changed; `made` and `deleted` list (zone, name)."""

    def __init__(self, create_seconds=0.0, delete_seconds=0.0, endpoint=("127.0.0.1", 1)):
        self.create_seconds, self.delete_seconds, self.endpoint = create_seconds, delete_seconds, endpoint
        self.nodes, self.made, self.deleted, self.bodies = {}, [], [], []
        self.requests, self.most_at_once = collections.Counter(), 0
        self.stillborn = set()  # zones that accept a node and then have no room for it
        self.silent, self.token = False, "token"
        self.ended = threading.Event()
        self._faults, self._lock, self._due = collections.defaultdict(list), threading.Lock(), {}
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.api = self
        self.address = "127.0.0.1:%d" % self._server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def environment(self, folder):
        """Variables that send Google's libraries here; `folder` has no files of gcloud's."""
        return {"GCE_METADATA_HOST": self.address, "GCE_METADATA_IP": self.address, "GCE_METADATA_ROOT": self.address,
                "TPU_API_DISCOVERY_URL": f"http://{self.address}/discovery/{{api}}/{{apiVersion}}",
                "CLOUDSDK_CONFIG": str(folder), "GOOGLE_APPLICATION_CREDENTIALS": "", "GOOGLE_CLOUD_PROJECT": "",
                "CLOUDSDK_CORE_PROJECT": "", "CLOUDSDK_COMPUTE_ZONE": ""}

    def left(self):
        """(zone, name) of the nodes that are there by now."""
        with self._lock:
            self._advance()
            return list(self.nodes)

    def description(self):
        path = os.path.join(os.path.dirname(discovery_cache.__file__), "documents", "tpu.v1.json")
        with open(path) as f:
            document = json.load(f)
        document.pop("mtlsRootUrl", None)
        return {**document, "rootUrl": f"http://{self.address}/", "baseUrl": f"http://{self.address}/"}

    def fail(self, method, kind, *, zone=None, times=10**9, message="injected"):
        """The next `times` requests of this method (in this zone) fail; returns the Fault."""
        fault = Fault(kind, times, message)
        self._faults[method, zone].append(fault)
        return fault

    def heal(self):
        self._faults.clear()

    def fault(self, method, zone):
        with self._lock:
            for key in ((method, zone), (method, None)):
                for fault in self._faults[key]:
                    if fault.left > 0:
                        fault.left -= 1
                        return fault
        return None

    def preempt(self, zone, name):
        with self._lock:
            self.nodes[zone, name]["state"] = "PREEMPTED"

    def put(self, name, zone=ZONE, **node):
        """A node that is simply there."""
        host, port = self.endpoint
        self.nodes[zone, name] = {"name": f"projects/{PROJECT}/locations/{zone}/nodes/{name}", "state": "READY",
                                  "health": "HEALTHY", "networkEndpoints": [{"ipAddress": host, "port": port}], **node}

    def handle(self, method, path, query, body):
        """(status, content) of the answer to a request about nodes."""
        with self._lock:
            self._advance()
            parent, _, zone, name = path.groups()
            if method == "POST":
                return self._create(parent, zone, re.search(r"nodeId=([^&]+)", query).group(1), body)
            if (zone, name) not in self.nodes:
                return 404, {"error": {"code": 404, "message": f"Resource '{parent}/nodes/{name}' was not found"}}
            if method == "DELETE":
                self.nodes[zone, name]["state"] = "DELETING"
                self.deleted.append((zone, name))
                self._due[zone, name] = time.monotonic() + self.delete_seconds
                return 200, {"name": f"{parent[:-len('/nodes')]}/operations/delete", "done": False}
            return 200, self.nodes[zone, name]

    def _create(self, parent, zone, name, body):
        if (zone, name) in self.nodes:
            return 409, {"error": {"code": 409, "message": f"Resource '{parent}/nodes/{name}' already exists"}}
        self.put(name, zone, **{**body, "state": "CREATING"})
        self.made.append((zone, name))
        self.bodies.append(body)
        self.most_at_once = max(self.most_at_once, len(self.nodes))
        self._due[zone, name] = time.monotonic() + self.create_seconds
        return 200, {"name": f"{parent[:-len('/nodes')]}/operations/create", "done": False}

    def _advance(self):
        """What has happened to the nodes by now."""
        for key, due in list(self._due.items()):
            if time.monotonic() < due:
                continue
            del self._due[key]
            state = self.nodes[key]["state"]
            if state == "DELETING" or key[0] in self.stillborn:
                del self.nodes[key]
            elif state == "CREATING":
                self.nodes[key]["state"] = "READY"
