"""Keeps a TPU node and its run alive: observes both, lets `lifecycle` decide, saves the decision, acts, repeats."""
from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time

from configs import cloud_tpu, errors, reading, storage
from configs.errors import UserError
from tools.survival import lifecycle, run_process

LABEL = "tpu-survival"
STATE_FILE, LOG_FILE = "state.json", "survival.log"
BACKUP_SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "backup_checkpoint.py")
NOTHING_TO_DELETE = (lifecycle.ABSENT, lifecycle.FOREIGN, "DELETING")
BACKUP_RETRY_SECONDS = 3600.0
LAST_BACKUP_SECONDS = 4 * 3600.0
DELETE_ATTEMPTS = 5  # when all else has failed
TICK_SECONDS = 0.2  # between looks at the run


def node_of(args, label):
    """The node to ask the API for."""
    node = {"acceleratorType": args.accelerator, "tensorflowVersion": args.software, "labels": {LABEL: label},
            "schedulingConfig": {"preemptible": not args.on_demand},
            "description": "made, and to be deleted, by tools/tpu_survival.py"}
    return {**node, "network": args.network} if args.network else node


def command_of(args, zone):
    """The run's command for a node in this zone."""
    return [*args.command, "--tpu", args.name, "--tpu_project", args.project, "--tpu_zone", zone]


class Keeper:
    """Keeps one run and its node alive.  `args` are those of tools/tpu_survival.py."""

    def __init__(self, args):
        self._args = args
        self._service = cloud_tpu.connect(args.answer_seconds)
        self._path = os.path.join(args.state_dir, STATE_FILE)
        self._run = run_process.RunProcess(args.state_dir, args.step_pattern)
        self._signal, self._api_answers = None, True
        self._backup, self._backup_due = None, 0.0
        self._state = self._load()

    def keep(self):
        """Goes on to the end and returns the exit status.  Raises UserError if the run fails or no zone gives a TPU."""
        before = self._state
        if before.phase == lifecycle.DONE and before.status == 0:
            print(f"{self._args.state_dir}: the run is done; give another --state_dir to begin anew")
            return 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal may go, the node must not stay
        if before.phase == lifecycle.DONE:  # another attempt; what was paid stays paid
            self._save(lifecycle.SurvivalState(before.project, before.name, before.label, self._args.zones[0],
                                               paid=before.paid, step=before.step, backed_up=before.backed_up))
        self._say(f"{self._args.name}: {lifecycle.cost(self._state, time.time()) / 3600:.2f} of"
                  f" {self._args.max_hours:g} hours used; output of the run: {self._run.output}")
        try:
            self._sweep()
            while self._state.phase != lifecycle.DONE:
                if not self._advance():
                    self._wait()
            self._sweep()
        except Exception:
            self._abandon()
            raise
        if self._args.backup_dir and self._state.step:
            self._make_last_backup()
        if self._state.status == errors.USER_ERROR:
            line = self._run.last_line() if self._state.failures else ""
            raise UserError(f"{self._state.reason}; no node is left{line and '; its output ends with: '}{line}")
        self._say(f"{self._state.reason}; no node is left")
        return self._state.status

    def _advance(self):
        """Observes, decides and acts once; returns whether there may be more to do at once."""
        running = self._run.running()
        self._run.read_output()
        before = self._state
        node, node_error = self._node_state(before.zone), ""
        if (before.phase, node) == (lifecycle.ASKED, lifecycle.ABSENT) and before.operation not in (
                None, lifecycle.HEARD):
            node_error = self._nodes(before.zone).failure(before.operation)
        seen = lifecycle.Observation(
            now=time.time(), node=node, node_error=node_error, running=running, exit_status=self._run.exit_status,
            step=self._run.step, quiet_seconds=time.monotonic() - self._run.step_time, signal=self._signal)
        state, action = lifecycle.decide(before, seen, self._args)
        if state != before:
            self._save(state)
            self._run.exit_status = None  # the SurvivalState counts it now
        self._act(action)
        self._watch_backup()
        return self._state.phase != before.phase and action != lifecycle.CREATE

    def _node_state(self, zone):
        """The state of our node in a zone: the API's word for it, or one of those of `lifecycle`."""
        try:
            node = self._nodes(zone).get(self._args.name)
        except cloud_tpu.ApiError as error:
            if not error.temporary and not os.path.exists(self._path):
                raise UserError(f"Google's TPU API refuses project {self._args.project}, zone {zone}: {error};"
                                f" {cloud_tpu.LOG_IN if error.status == 401 else 'check --tpu_project and --zones'}")
            if self._api_answers:
                self._say(f"Google's TPU API does not answer ({error}); asking again, and leaving all as it is")
            self._api_answers = False
            return lifecycle.UNKNOWN
        self._api_answers = True
        if node is None:
            return lifecycle.ABSENT
        labels = node.get("labels")
        ours = isinstance(labels, dict) and labels.get(LABEL) == self._state.label
        return node.get("state", lifecycle.UNKNOWN) if ours else lifecycle.FOREIGN

    def _sweep(self):
        """Deletes nodes of this run in other zones: a request was heard there although its answer was lost."""
        for zone in self._args.zones:
            if zone != self._state.zone and self._node_state(zone) not in (*NOTHING_TO_DELETE, lifecycle.UNKNOWN):
                self._say(f"zone {zone}: deleting a node of this run that was left there")
                self._delete(zone)

    def _act(self, action):
        state = self._state
        if action == lifecycle.CREATE:
            self._create()
        elif action == lifecycle.DELETE:
            self._delete(state.zone)
        elif action == lifecycle.START:
            self._run.start(command_of(self._args, state.zone))
            self._say(f"the run is started on {state.name} in {state.zone}")
        elif action == lifecycle.STOP:
            self._run.stop(self._args.grace_seconds)

    def _create(self):
        state = self._state
        nodes = self._nodes(state.zone)
        try:
            answer = nodes.send(nodes.creation(self._args.name, node_of(self._args, state.label)))
            name = answer.get("name")
            state = state._replace(operation=name if name and isinstance(name, str) else lifecycle.HEARD)
        except cloud_tpu.ApiError as error:
            if error.status == 409 or error.temporary and error.status != 429:
                self._say(f"zone {state.zone}: the request for a node was not answered ({error})")
                return  # the next observation tells whether the API got it
            state = lifecycle.refuse(state, time.time(), str(error), not error.temporary, self._args)
        self._save(state)

    def _delete(self, zone):
        nodes = self._nodes(zone)
        try:
            nodes.send(nodes.deletion(self._args.name))
        except cloud_tpu.ApiError as error:
            if error.status != 404:
                self._say(f"{self._args.name} in {zone} cannot be deleted yet ({error})")

    # Backups run in a process of their own: copying takes minutes, and TensorFlow takes memory.

    def _watch_backup(self):
        """Notes how a backup ended, and starts one when it is due."""
        if self._backup and self._backup.poll() is not None:
            if self._backup.returncode == 0:
                self._save(self._state._replace(backed_up=time.time()))
            else:
                again = "; trying again in an hour" if self._state.phase != lifecycle.DONE else ""
                self._say(f"the backup failed, see {self._run.output}{again}")
                self._backup_due = time.time() + BACKUP_RETRY_SECONDS
            self._backup = None
        due = time.time() >= max(self._state.backed_up + self._args.backup_hours * 3600, self._backup_due)
        running = self._state.phase == lifecycle.RUN and self._state.step
        if self._args.backup_dir and running and due and not self._backup:
            self._start_backup()

    def _start_backup(self):
        command = [sys.executable, BACKUP_SCRIPT, self._args.model_dir, self._args.backup_dir, "--keep",
                   str(self._args.keep_backups)]
        with open(self._run.output, "ab") as f:
            self._backup = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                                            start_new_session=True)

    def _make_last_backup(self):
        try:
            if self._backup:
                self._backup.wait(LAST_BACKUP_SECONDS)
            self._start_backup()
            self._backup.wait(LAST_BACKUP_SECONDS)
            self._watch_backup()
        except subprocess.TimeoutExpired:
            self._backup.kill()
            self._say(f"the last backup took more than {LAST_BACKUP_SECONDS / 3600:g} hours and was given up")

    # Files, signals, and the end after an error.

    def _load(self):
        args = self._args
        if not os.path.exists(self._path):
            return lifecycle.SurvivalState(args.project, args.name, secrets.token_hex(8), args.zones[0])
        try:
            state = lifecycle.SurvivalState(**reading.parse(storage.read_bytes(self._path)))
            lifecycle.check(state)
        except (ValueError, TypeError):
            raise UserError(f"{self._path} is damaged, so it is not known which node is this run's; bring the file"
                            f" back, or look with `gcloud compute tpus list` for nodes with a label {LABEL}, delete"
                            " those that this run made, and give another --state_dir")
        if (state.project, state.name) != (args.project, args.name):
            raise UserError(f"{self._path} is of node {state.name} in project {state.project}, not of {args.name} in"
                            f" {args.project}; give another --state_dir")
        return state._replace(refused=tuple(map(tuple, state.refused)))

    def _save(self, state):
        """Makes `state` the current one, on disk first, and prints what has changed."""
        storage.write_whole(self._path, json.dumps(state._asdict()) + "\n")
        before, self._state = self._state, state
        pause = f"{self._args.retry_minutes:g} minutes"
        if state.failures > before.failures and state.phase == lifecycle.RUN:
            self._say(f"the run failed at step {state.step}; starting it again in {pause}")
        if state.phase == before.phase:
            return
        if state.phase == lifecycle.ASKED:
            self._say(f"zone {state.zone}: asked for {self._args.accelerator} as {state.name}")
        elif state.phase in (lifecycle.CLEAN, lifecycle.END):
            waits = state.wait_until > state.since
            self._say(state.reason + (f"; no zone has one, asking again in {pause}" if waits else ""))

    def _nodes(self, zone):
        return cloud_tpu.Nodes(self._service, self._args.project, zone, self._args.answer_seconds)

    def _abandon(self):
        """Ends the run and deletes the node without writing anything: the disk may be full."""
        state = self._state
        until = time.monotonic() + self._args.grace_seconds + 5
        while self._run.running() and time.monotonic() < until:
            self._run.stop(self._args.grace_seconds)
            time.sleep(TICK_SECONDS)
        if not os.path.exists(self._path):
            return  # no node was asked for
        for attempt in range(DELETE_ATTEMPTS):
            node = self._node_state(state.zone)
            if node in NOTHING_TO_DELETE:
                return
            if node != lifecycle.UNKNOWN:  # it may be anybody's
                self._delete(state.zone)
            time.sleep(attempt * TICK_SECONDS)
        self._say(f"the node may be left: if `gcloud compute tpus describe {state.name} --zone {state.zone} --project"
                  f" {state.project}` shows the label {LABEL}: {state.label}, it is this run's, and is to be deleted")

    def _handle(self, number, frame):
        if self._signal is not None:
            os.write(2, b"killed: the node and the run may be left; the same command again takes them up\n")
            os._exit(128 + number)
        self._signal = number
        os.write(2, b"signal %d: ending the run and deleting the node; once more leaves them\n" % number)

    def _wait(self):
        """Waits until it is time to observe anew, or the run begins or ends, or a signal is to be heeded."""
        until, running = time.monotonic() + self._args.poll_seconds, self._run.running()
        while time.monotonic() < until and self._run.running() == running and (
                self._signal is None or self._state.phase == lifecycle.END):
            time.sleep(min(TICK_SECONDS, self._args.poll_seconds))

    def _say(self, line):
        text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {errors.printable(line)}"
        with contextlib.suppress(OSError):  # a terminal that is gone, a disk that is full
            print(text, flush=True)
        with contextlib.suppress(OSError), open(os.path.join(self._args.state_dir, LOG_FILE), "a") as f:
            f.write(text + "\n")
