"""Kill training at random moments, as often as the argument says and until two runs are finished in spite of it.

Each child is a fork of this process, which has trained once already: importing torch 50 times would take minutes.
"""

import os
import random
import signal
import sys
import threading
import time

from toy_run import train
from tqdm import tqdm

from lab import training
from litrev import paths


def child() -> int:
    """Fork; the child trains the runs of seed 0, 1, ... that are not finished yet, one after the other, for ever."""
    pid = os.fork()
    if pid:
        return pid
    training.CHECKPOINT_SECONDS = -1.0  # save at every step: about half of the kills strike while a file is written
    for seed in range(10**6):
        train(steps=20, seed=seed)
    os._exit(1)


def saved() -> dict[str, int]:
    """Return the run files with their inodes, which change when a file is replaced."""
    with os.scandir(paths.runs_dir()) as entries:
        return {e.name: e.inode() for e in entries if e.name.startswith("toy-") and e.name.endswith(".safetensors")}


def finished() -> int:
    return len([name for name in saved() if ".partial." not in name])


def killed(gets_on: bool, moment: float) -> None:
    """Start a child and kill it after `moment` seconds, counted from when it has saved something if it `gets_on`."""
    before = saved()
    pid = child()
    try:
        while gets_on and saved() == before:
            time.sleep(0.001)
        time.sleep(moment)
    finally:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "a child ended by itself"


def main(kills: int) -> None:
    tqdm.set_lock(threading.RLock())  # its own lock is shared by forks: a killed one would hold it for ever
    tqdm.monitor_interval = 0  # and no thread while we fork
    train(name="first")  # torch imports more of itself at the first step
    moments = random.Random(0)
    done = 0
    while done < kills or finished() < 2:
        killed(done % 2 == 1, moments.uniform(0, 0.1))  # every second one gets on, however slow the machine
        done += 1


if __name__ == "__main__":
    main(int(sys.argv[1]))
