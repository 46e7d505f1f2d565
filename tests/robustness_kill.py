"""Kill training at random moments, as often as the argument says and until two runs are finished in spite of it.

Each child is a fork of this process, which has trained once already: importing torch 50 times would take minutes.
"""

import os
import random
import signal
import sys
import time

from toy_run import train

from litrev import paths, training


def child() -> int:
    """Fork; the child trains the runs of seed 0, 1, ... that are not finished yet, one after the other, for ever."""
    pid = os.fork()
    if pid:
        return pid
    training.CHECKPOINT_SECONDS = -1.0  # save at every step: about half of the kills strike while a file is written
    for seed in range(10**6):
        train(steps=20, seed=seed)
    os._exit(1)


def saved() -> list:
    return sorted((path.name, path.stat().st_mtime_ns) for path in paths.runs_dir().glob("toy-*.safetensors"))


def finished() -> int:
    return len([name for name, _ in saved() if ".partial." not in name])


def main(kills: int) -> None:
    train(name="first")  # torch imports more of itself at the first step
    moments = random.Random(0)
    done = 0
    while done < kills or finished() < 2:
        before = saved()
        pid = child()
        while done % 2 and saved() == before:  # every second child gets on, however slow the machine
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "a child ended by itself"
        done += 1


if __name__ == "__main__":
    main(int(sys.argv[1]))
