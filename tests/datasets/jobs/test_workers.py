"""What worker processes hear of Ctrl-C before they have begun."""
import os
import signal
import subprocess
import sys

from tests.helpers.runs import ROOT
from tests.helpers.waiting import wait_until

# A worker imports the program once more, under another name.
PROGRAM = """
import os, time
if __name__ != "__main__":
    open(os.path.join(os.path.dirname(__file__), str(os.getpid())), "w").close()
    time.sleep(1)
from datasets.jobs import workers
def double(job, advance):
    return 2 * job
if __name__ == "__main__":
    with workers.started(2, time.sleep, 0) as pool:
        print(sorted(workers.each(double, [1, 2, 3], 2, None, lambda amount: None, pool=pool)))
"""


def test_workers_leave_ctrl_c_to_the_parent_while_they_import(tmp_path):
    """Else each would end with a traceback."""
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, str(tmp_path / "program.py")], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT})
    wait_until(lambda: len(os.listdir(tmp_path)) == 3)
    for name in set(os.listdir(tmp_path)) - {"program.py"}:
        os.kill(int(name), signal.SIGINT)
    assert process.communicate(timeout=30) == ("[2, 4, 6]\n", "") and process.returncode == 0
