"""Finds the TPU that `--tpu` names and checks that it is ready for our TensorFlow; one line says what is wrong with it.

TensorFlow alone waits for ever for a silent metadata server, and a day for a TPU that does not answer.
"""
from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.metadata
import re
import socket
import time
from typing import NamedTuple

from configs import cloud_tpu, reading, waiting
from configs.errors import UserError

LOCAL = "local"  # this machine is a TPU VM
GRPC = "grpc://"
PORT = "8470"
VERSION_PORT = 8475  # where a node tells its version
CONNECT_SECONDS = 3.0
DEVICES_SECONDS = 7.0
ANSWER_SECONDS = 5.0
LOOK_UP_SECONDS = 11.0  # for all requests to Google together
WILL_BE_READY = ("CREATING", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING", "UNHIDING")


class Tpu(NamedTuple):
    """A TPU whose workers answer; str() is what the user called it.  What Google alone knows is None for an address."""
    name: str
    project: str | None
    zone: str | None
    workers: tuple  # of "HOST:PORT"
    version: str | None  # of its TensorFlow
    nodes: cloud_tpu.Nodes | None = None  # of the project and zone

    def __str__(self):
        return self.name


def find(name, project=None, zone=None):
    """Finds the Tpu that `name` means: a name, grpc://HOST:PORT[,HOST:PORT...] or local.

    Its workers have answered.  Raises UserError within seconds.
    """
    if name == LOCAL:
        return Tpu(name, None, None, (), None)
    tpu = _of_addresses(name) if name.startswith(GRPC) else _look_up(name, project, zone)
    _check_version(tpu)  # before its workers are called, which may take long
    _reach(tpu)
    if tpu.version is None:
        tpu = tpu._replace(version=_ask_version(tpu.workers[0]))
        _check_version(tpu)
    return tpu


def _of_addresses(name):
    """The Tpu of grpc://HOST:PORT[,...]."""
    workers = []
    for address in name.split(","):
        match = re.fullmatch(r"(?:grpc://)?([\w.-]+)(?::(\d{1,5}))?", address.strip())
        if not match:
            raise UserError(f"--tpu {name}: {address} is no address; give grpc://HOST:{PORT}, several with commas")
        workers.append(f"{match.group(1)}:{match.group(2) or PORT}")
    return Tpu(name, None, None, tuple(workers), None)


def _look_up(name, project, zone):
    """The Tpu of this name, from Google's API."""
    if not re.fullmatch(cloud_tpu.NODE_NAME, name):
        raise UserError(f"--tpu {name} is no name of a TPU (small letters, digits and -); give one, {GRPC}HOST:{PORT},"
                        f" or {LOCAL} on a TPU VM")
    until = time.monotonic() + LOOK_UP_SECONDS
    try:
        project, zone = cloud_tpu.place(project, zone)
        nodes = cloud_tpu.Nodes(cloud_tpu.connect(ANSWER_SECONDS), project, zone, ANSWER_SECONDS)
        node = waiting.within(max(until - time.monotonic(), 1), lambda: nodes.get(name))
        problem = _problem(name, node, project, zone)
    except UserError as error:
        problem = error
    except (TimeoutError, cloud_tpu.ApiError) as error:
        problem = _refusal(error, project)
    if problem:
        raise UserError(f"--tpu {name}: {problem}")
    return Tpu(name, project, zone, _workers(node), node.get("tensorflowVersion"), nodes)


def _refusal(error, project):
    """What an ApiError or a TimeoutError means and what to do."""
    if isinstance(error, TimeoutError) or error.temporary:
        return f"Google's TPU API does not answer ({error}); check the network and run again, or give {GRPC}HOST:{PORT}"
    if error.status == 401:
        return f"{error}; {cloud_tpu.LOG_IN}"
    if error.status == 403:
        return (f"these Google credentials may not see the TPUs of project {project} ({error}); ask for the role"
                f" roles/tpu.viewer there, or run `gcloud services enable tpu.googleapis.com --project {project}`")
    return f"Google's TPU API answers {error.status} ({error}); check --tpu_project {project} and --tpu_zone"


def _problem(name, node, project, zone):
    """What keeps the node from being used, and the remedy, or None."""
    where = f"--zone {zone} --project {project}"
    if node is None:
        return (f"project {project} has no TPU node of this name in zone {zone}; `gcloud compute tpus list {where}`"
                " lists those there are; give --tpu_zone for another zone")
    state = node.get("state", "UNKNOWN")
    if state in WILL_BE_READY:
        return f"is {state}, not READY; wait until `gcloud compute tpus describe {name} {where}` says READY"
    if state in ("STOPPED", "STOPPING"):
        return f"is {state}, not READY; run `gcloud compute tpus start {name} {where}`"
    if state not in ("READY", *cloud_tpu.GONE):
        return (f"is {state}, not READY, and what that means is not known here; see `gcloud compute tpus describe"
                f" {name} {where}`")
    if state != "READY":
        return (f"is {state}, not READY; run `gcloud compute tpus delete {name} {where}` and create it again, or let"
                " tools/tpu_survival.py do so")
    health = node.get("health", "")
    if "UNHEALTHY" in health or health == "TIMEOUT":
        return (f"is {health} ({node.get('healthDescription') or 'no reason given'}); run `gcloud compute tpus stop"
                f" {name} {where}` and then start")
    return None if _workers(node) else f"has no address; see `gcloud compute tpus describe {name} {where}`"


def _workers(node):
    """("HOST:PORT", ...) of a node's workers; none where one of them has no address."""
    endpoints = node.get("networkEndpoints") or ([node] if node.get("ipAddress") else [])
    if not all(isinstance(endpoint, dict) and isinstance(endpoint.get("ipAddress"), str)
               and str(endpoint.get("port") or PORT).isdecimal() for endpoint in endpoints):
        return ()
    return tuple(f"{endpoint['ipAddress']}:{endpoint.get('port') or PORT}" for endpoint in endpoints)


def _reach(tpu):
    """Connects to all workers at the same time.  Raises UserError for the first that does not answer."""
    def reach(worker):
        host, _, port = worker.rpartition(":")
        try:
            waiting.within(CONNECT_SECONDS, lambda: socket.create_connection((host, int(port)))).close()
        except (OSError, OverflowError) as error:
            cause = getattr(error, "strerror", None) or error
            raise UserError(f"--tpu {tpu}: its worker {worker} does not answer ({cause}); run on a VM in the TPU's"
                            " network and zone, and allow this port in its firewall")
    with concurrent.futures.ThreadPoolExecutor(len(tpu.workers)) as pool:
        list(pool.map(reach, tpu.workers))


def _ask_version(worker):
    """The version of a node's TensorFlow, as the node itself tells it; None where it tells nothing."""
    url = f"http://{worker.rpartition(':')[0]}:{VERSION_PORT}/requestversion"
    try:
        answer = reading.parse(cloud_tpu.get_directly(url, 1))
        reading.check_kinds(answer, {"currentVersion": str})
        return answer["currentVersion"]
    except (OSError, ValueError):
        return None


def our_version():
    """The version of TensorFlow here, if possible without importing it; None without one."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("tensorflow")
    with contextlib.suppress(ImportError):
        import tensorflow  # from tensorflow-cpu and others
        return tensorflow.__version__
    return None


def _check_version(tpu):
    """Raises UserError for a node of another release, which drops or misreads the graph with ever new errors."""
    ours = our_version()
    if tpu.version is None or tpu.version.split(".")[:2] == ours.split(".")[:2]:
        return
    delete = f"run `gcloud compute tpus delete {tpu} --zone {tpu.zone} --project {tpu.project}` and create it again"
    raise UserError(f"--tpu {tpu} runs the software {tpu.version}, but TensorFlow here is {ours};"
                    f" {delete if tpu.project else 'create a TPU'} with --version={ours}")


def resolver(tpu):
    """TensorFlow's TPUClusterResolver for the Tpu; its attribute `cores` counts the cores.  Raises UserError."""
    import tensorflow.compat.v1 as tf
    made = tf.distribute.cluster_resolver.TPUClusterResolver(
        tpu.name if tpu.nodes or tpu.name == LOCAL else ",".join(GRPC + worker for worker in tpu.workers),
        project=tpu.project, zone=tpu.zone,
        # TensorFlow's own connection waits for credentials for ever, and oauth2client cannot read all of them.
        service=tpu.nodes and tpu.nodes.service)
    try:
        spec = waiting.within(ANSWER_SECONDS, made.cluster_spec)
    except (TimeoutError, ValueError, RuntimeError) as error:
        raise UserError(f"--tpu {tpu}: {str(error).splitlines()[0]}; run again")
    made.cluster_spec = lambda: spec  # else TensorFlow (2.15.1) asks Google at each use
    made.cores = _count_cores(tf, tpu, made)
    return made


def _count_cores(tf, tpu, made):
    seconds = None if tpu.name == LOCAL else DEVICES_SECONDS  # a TPU VM wakes its TPU first
    config = tf.ConfigProto(operation_timeout_in_ms=int(seconds * 1000) if seconds else 0, isolate_session_state=True)
    config.cluster_def.CopyFrom(made.cluster_spec().as_cluster_def())

    def list_devices():
        with tf.Graph().as_default(), tf.Session(made.master(), config=config) as session:
            return session.list_devices()
    try:
        devices = waiting.within(seconds, list_devices)
    except (tf.errors.OpError, TimeoutError) as error:
        raise UserError(f"--tpu {tpu}: {made.master() or 'this machine'} does not answer as a TPU"
                        f" ({str(error).splitlines()[0]}); check the address and that no other process uses the TPU")
    cores = sum(device.device_type == "TPU" for device in devices)
    if not cores:
        raise UserError("--tpu local: this machine has no TPU that TensorFlow finds; run on a TPU VM, or give a name"
                        if tpu.name == LOCAL else
                        f"--tpu {tpu}: {made.master()} is a TensorFlow server without TPU cores; check the address")
    return cores


def preemption(tpu):
    """What became of a TPU whose node will not come back, in one line; None where it is there or nobody can tell."""
    try:
        node = tpu.nodes.get(tpu.name)
    except cloud_tpu.ApiError:
        return None
    if node and node.get("state") not in cloud_tpu.GONE:
        return None
    return (f"--tpu {tpu}: {_problem(tpu.name, node, tpu.project, tpu.zone)}; then run this again, and it goes on from"
            " the last checkpoint")
