"""Train the same run in two processes at once and print the source of each; 'kill' as argument kills the first."""

import os
import signal
import sys
import threading
import time

from toy_run import train
from tqdm import tqdm

from lab import training
from litrev import paths


def child() -> int:
    pid = os.fork()
    if pid:
        return pid
    print(f"source: {train(steps=100).source}", flush=True)
    os._exit(0)


def main(what: str) -> None:
    tqdm.set_lock(threading.RLock())  # its own lock is shared by forks: a killed one would hold it for ever
    tqdm.monitor_interval = 0  # and no thread while we fork
    train(name="first")  # torch imports more of itself at the first step
    training.CHECKPOINT_SECONDS = -1.0
    first = child()
    while not list(paths.runs_dir().glob("toy-*.partial.safetensors")):
        time.sleep(0.005)
    second = child()
    if what == "kill":
        time.sleep(0.05)
        os.kill(first, signal.SIGKILL)
    for pid in (first, second):
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(sys.argv[1])
