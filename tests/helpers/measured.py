"""How much memory a command takes."""
import subprocess
import sys

_STARTER = ("import resource, subprocess, sys; status = subprocess.run(sys.argv[1:]).returncode;"
            " print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(status)")


def run(*command, **options):
    """(finished process, largest resident memory in bytes of it and of each process it waited for).

    A process starts with the largest size of the one that started it, so that a small one has to do that: getrusage(2).
    """
    result = subprocess.run([sys.executable, "-c", _STARTER, *map(str, command)], capture_output=True, text=True,
                            **options)
    result.stdout, _, peak = result.stdout.rstrip("\n").rpartition("\n")
    return result, int(peak) * 1024
