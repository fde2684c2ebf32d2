"""The process of shim.Runner: loads modules, then runs main(argv) of one of them in a child for each line of stdin.

A line is a JSON object; the answer is a line with the child's exit status, negative for a signal.
"""
import atexit
import importlib
import json
import os
import signal
import sys
import traceback

from configs import commands, start, storage

# What a module loads inside of its functions; no session of TensorFlow begins before the fork.
WITH = {
    "main": ("inputs", "datasets.shard_sets", "datasets.vocabularies", "datasets.window_order", "matplotlib.pyplot",
             "models.gpt2", "models.checkpoints.run_folder", "models.checkpoints.warm_start",
             "models.run.after_evaluation", "models.run.damage", "models.run.devices", "models.run.endings",
             "models.run.export", "models.run.hooks", "models.run.hosts", "models.run.plan", "models.run.samples",
             "models.run.workarounds"),
    "models.checkpoints.convert": ("torch", "transformers.models.gpt2.modeling_gpt2")}


def load(names):
    storage.silence_tensorflow()
    for name in names:
        importlib.import_module(name)
        for other in WITH.get(name, ()):
            importlib.import_module(other)


def child(job):
    """Runs the job and ends the process."""
    os.chdir(job["folder"])
    os.environ.update(job["environment"])  # the library looks at it at every call
    sys.stdin = open(os.devnull)  # noqa: SIM115
    for number, path in ((1, job["out"]), (2, job["err"])):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    signal.alarm(job["seconds"])
    module, status = sys.modules[job["module"]], 1
    sys.argv = [module.__file__, *job["argv"]]
    start.begin()
    try:
        commands.run(module.main, job["argv"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored in the background, `nohup` SIGHUP
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    load(sys.argv[1:])
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            child(json.loads(line))
        _, state = os.waitpid(pid, 0)
        print(-os.WTERMSIG(state) if os.WIFSIGNALED(state) else os.WEXITSTATUS(state), flush=True)


if __name__ == "__main__":
    main()
