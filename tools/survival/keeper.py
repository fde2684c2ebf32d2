"""Looks at a TPU node and at the run on it, decides by `lifecycle`, writes the State down, acts, and looks again."""
from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time

from configs import cloud_tpu, storage
from configs.errors import UserError
from tools.survival import lifecycle, supervised

LABEL = "tpu-survival"
STATE_FILE, LOG_FILE = "state.json", "survival.log"
BACKUP_SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "backup_checkpoint.py")
FOR_GOOD = (400, 401, 403, 404)  # refusals that the same question will always get
NOTHING = (lifecycle.ABSENT, lifecycle.FOREIGN, lifecycle.UNKNOWN, "DELETING")
BACKUP_RETRY_SECONDS = 3600.0
LAST_BACKUP_SECONDS = 4 * 3600.0
ATTEMPTS = 5  # at deleting a node when all else has failed
TICK = 0.2  # seconds between looks at the run, between those at the node


def node_of(args, label):
    """The node to ask for, as the API describes it."""
    node = {"acceleratorType": args.accelerator, "tensorflowVersion": args.software, "labels": {LABEL: label},
            "schedulingConfig": {"preemptible": not args.on_demand},
            "description": "made, and to be deleted, by tools/tpu_survival.py"}
    return {**node, "network": args.network} if args.network else node


def command_of(args, zone):
    """The run's command for a node in this zone."""
    return [*args.command, "--tpu", args.name, "--tpu_project", args.project, "--tpu_zone", zone]


class Keeper:
    """One run and its node.  `args`: of tools/tpu_survival.py; `options`: lifecycle.Options."""

    def __init__(self, args, options):
        self._args, self._options = args, options
        self._service = cloud_tpu.connect(args.answer_seconds)
        self._path = os.path.join(args.state_dir, STATE_FILE)
        self._run = supervised.Supervised(args.state_dir, args.step_pattern)
        self._signal, self._woken = None, threading.Event()
        self._outage, self._backup, self._backup_due = None, None, 0.0
        self._state = self._load()

    def keep(self):
        """To the end; returns the exit status.  Raises UserError where the run failed or no zone gives a TPU."""
        if self._state.phase == lifecycle.DONE and self._state.status == 0:
            print(f"{self._args.state_dir}: the run is done; delete the folder to begin anew")
            return 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal may go, the node must not stay
        if self._state.phase == lifecycle.DONE:
            self._save(lifecycle.again(self._state, self._options))
        self._say(f"{self._args.name}: {lifecycle.cost(self._state, time.time()) / 3600:.2f} of"
                  f" {self._args.max_hours:g} hours used; output of the run: {self._run.output}")
        try:
            self._sweep()
            while self._state.phase != lifecycle.DONE:
                if not self._step():
                    self._rest()
            self._sweep()
        except Exception:
            self._abandon()
            raise
        if self._args.backup_dir and self._state.step:
            self._back_up(LAST_BACKUP_SECONDS)
        if self._state.status == lifecycle.USER_ERROR:
            line = self._run.last_line() if self._state.failures else ""
            raise UserError(f"{self._state.reason}; no node is left{line and '; its output ends with: '}{line}")
        self._say(f"{self._state.reason}; no node is left")
        return self._state.status

    def _step(self):
        """Looks, decides and acts once; returns whether there may be more to do at once."""
        running = self._run.running()
        self._run.look()
        before = self._state
        node = self._look_at(before.zone)
        vanished = before.phase == lifecycle.ASKED and node == lifecycle.ABSENT and before.operation
        seen = lifecycle.Seen(
            now=time.time(), node=node, why=self._why(before) if vanished else "", running=running,
            ended=self._run.ended, step=self._run.step, quiet=time.monotonic() - self._run.changed, signal=self._signal)
        state, action = lifecycle.decide(before, seen, self._options)
        if state != before:
            self._save(state)
            self._run.ended = None  # it is in the State now
            self._report(before)
        self._act(action)
        self._watch_backup()
        return self._state.phase != before.phase and action != lifecycle.CREATE

    def _look_at(self, zone):
        """What is seen of our node in a zone, in the words of `lifecycle`."""
        try:
            node = self._nodes(zone).get(self._args.name)
        except cloud_tpu.ApiError as error:
            if not error.passing and not os.path.exists(self._path):
                raise UserError(f"Google's TPU API refuses project {self._args.project}, zone {zone}: {error};"
                                f" {cloud_tpu.LOG_IN if error.status == 401 else 'check --tpu_project and --zones'}")
            if self._outage is None:
                self._say(f"Google's TPU API does not answer ({error}); asking again, and leaving all as it is")
            self._outage = error
            return lifecycle.UNKNOWN
        self._outage = None
        if node is None:
            return lifecycle.ABSENT
        ours = node.get("labels", {}).get(LABEL) == self._state.label
        return node.get("state", lifecycle.UNKNOWN) if ours else lifecycle.FOREIGN

    def _why(self, state):
        """What the API says of a node that did not come."""
        if state.operation != lifecycle.HEARD:
            with contextlib.suppress(cloud_tpu.ApiError):
                return self._nodes(state.zone).failure(state.operation)
        return ""

    def _sweep(self):
        """Deletes nodes of this run in other zones than the present one: of a question whose answer was lost."""
        for zone in self._options.zones:
            if zone != self._state.zone and self._look_at(zone) not in NOTHING:
                self._say(f"zone {zone}: deleting a node of this run that was left there")
                with contextlib.suppress(cloud_tpu.ApiError):
                    self._nodes(zone).delete(self._args.name)

    def _act(self, action):
        state = self._state
        if action == lifecycle.CREATE:
            self._create()
        elif action == lifecycle.DELETE:
            try:
                self._nodes(state.zone).delete(self._args.name)
            except cloud_tpu.ApiError as error:
                if error.status != 404:
                    self._say(f"{state.name} in {state.zone} cannot be deleted yet ({error}); asking again")
        elif action == lifecycle.START:
            self._run.start(command_of(self._args, state.zone), {"PYTHONUNBUFFERED": "1"})
            self._say(f"the run is started on {state.name} in {state.zone}")
        elif action == lifecycle.STOP:
            self._run.stop(self._options.grace)

    def _create(self):
        before = self._state
        try:
            answer = self._nodes(before.zone).create(self._args.name, node_of(self._args, before.label))
        except cloud_tpu.ApiError as error:
            if error.status == 409 or error.passing and error.status != 429:
                self._say(f"zone {before.zone}: the question for a node was not answered ({error})")
                return  # the next look tells whether it was heard
            self._save(lifecycle.refuse(before, time.time(), str(error), error.status in FOR_GOOD, self._options))
            self._report(before)
            return
        self._save(before._replace(operation=answer.get("name") or lifecycle.HEARD))

    def _report(self, before):
        """Says what has changed."""
        state = self._state
        if state.failures > before.failures and state.phase == lifecycle.RUN:
            self._say(f"the run failed at step {state.step}; starting it again in {self._args.retry_minutes:g} minutes")
        if state.phase == before.phase:
            return
        if state.phase == lifecycle.ASKED:
            self._say(f"zone {state.zone}: asked for {self._args.accelerator} as {state.name}")
        elif state.phase in (lifecycle.CLEAN, lifecycle.END):
            pause = f"; no zone has one, asking again in {self._args.retry_minutes:g} minutes"
            self._say(state.reason + (pause if state.wait_until > state.since else ""))

    # Backups, in a process of their own: copying takes minutes, and TensorFlow its memory.

    def _watch_backup(self):
        if self._backup and self._backup.poll() is not None:
            if self._backup.returncode == 0:
                self._save(self._state._replace(backed_up=time.time()))
            else:
                self._say(f"the backup failed, see {self._run.output}; trying again in an hour")
                self._backup_due = time.monotonic() + BACKUP_RETRY_SECONDS
            self._backup = None
        due = time.time() - self._state.backed_up >= self._args.backup_hours * 3600
        if self._args.backup_dir and self._state.step and due and not self._backup \
                and time.monotonic() >= self._backup_due and self._state.phase == lifecycle.RUN:
            self._start_backup()

    def _start_backup(self):
        command = [sys.executable, BACKUP_SCRIPT, self._args.model_dir, self._args.backup_dir, "--keep",
                   str(self._args.keep_backups)]
        with open(self._run.output, "ab") as f:
            self._backup = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                                            start_new_session=True)

    def _back_up(self, seconds):
        """Waits for a backup of the last checkpoint."""
        try:
            if self._backup:
                self._backup.wait(seconds)
            self._start_backup()
            if self._backup.wait(seconds):
                self._say(f"the last backup failed, see {self._run.output}")
            else:
                self._save(self._state._replace(backed_up=time.time()))
        except subprocess.TimeoutExpired:
            self._backup.kill()
            self._say(f"the last backup took more than {seconds / 3600:g} hours and was given up")

    # The edges

    def _load(self):
        args = self._args
        if not os.path.exists(self._path):
            return lifecycle.State(args.project, args.name, secrets.token_hex(8), args.zones[0])
        try:
            with open(self._path, encoding="utf-8") as f:
                state = lifecycle.State(**json.load(f))
        except (ValueError, TypeError):
            raise UserError(f"{self._path} is damaged; delete the nodes that are left (`gcloud compute tpus list`), and"
                            " then this file")
        if (state.project, state.name) != (args.project, args.name):
            raise UserError(f"{self._path} is of node {state.name} in project {state.project}, not of {args.name} in"
                            f" {args.project}; give another --state_dir")
        return state._replace(refused=tuple(map(tuple, state.refused)))

    def _save(self, state):
        storage.write_whole(self._path, json.dumps(state._asdict()) + "\n")
        self._state = state

    def _nodes(self, zone):
        return cloud_tpu.Nodes(self._service, self._args.project, zone, self._args.answer_seconds)

    def _abandon(self):
        """Ends the run and deletes the node without writing anything down: the disk may be full."""
        state = self._state
        until = time.monotonic() + self._options.grace + 5
        while self._run.running() and time.monotonic() < until:
            self._run.stop(self._options.grace)
            time.sleep(TICK)
        if not os.path.exists(self._path):
            return  # nothing was asked for
        for attempt in range(ATTEMPTS):
            seen = self._look_at(state.zone)
            if seen in NOTHING and seen != lifecycle.UNKNOWN:
                return
            with contextlib.suppress(cloud_tpu.ApiError):
                self._nodes(state.zone).delete(state.name)
            time.sleep(attempt * TICK)
        self._say(f"the node may be left; run `gcloud compute tpus delete {state.name} --zone {state.zone}"
                  f" --project {state.project}`")

    def _handle(self, number, frame):
        if self._signal is not None:
            os.write(2, b"killed: the node and the run may be left; the same command again takes them up\n")
            os._exit(128 + number)
        self._signal = number
        self._woken.set()
        os.write(2, b"signal %d: ending the run and deleting the node; once more leaves them\n" % number)

    def _rest(self):
        """Until it is time to look again, or something happens."""
        until, running = time.monotonic() + self._args.poll_seconds, self._run.running()
        while time.monotonic() < until and self._run.running() == running and not self._woken.wait(
                min(TICK, self._args.poll_seconds)):
            pass
        self._woken.clear()

    def _say(self, line):
        text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"
        with contextlib.suppress(OSError):  # a terminal that is gone, a disk that is full
            print(text, flush=True)
        with contextlib.suppress(OSError), open(os.path.join(self._args.state_dir, LOG_FILE), "a") as f:
            f.write(text + "\n")
