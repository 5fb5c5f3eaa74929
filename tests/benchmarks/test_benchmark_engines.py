"""`CpuMeter` counts processes of its sessions that have ended, and does not count processes of other sessions."""

import subprocess
import sys

from benchmarks.engines import CpuMeter

BURN = "import time\nwhile time.process_time() < {}: pass\n"


def test_processes_of_a_session_count_after_their_end_and_others_do_not() -> None:
    meter = CpuMeter()
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN.format(0.4)!r}])\n" + BURN.format(0.4)
    with meter.watching():
        mine = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        meter.sessions.add(mine.pid)
        other = subprocess.Popen([sys.executable, "-c", BURN.format(0.3)], start_new_session=True)
        assert mine.wait() == other.wait() == 0
    assert 0.6 < meter.total < 1.2, "two processes of 0.4 s, without the time after the last reading"
