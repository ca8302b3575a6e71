#!/usr/bin/env python3
"""Run one server in a process group of its own, and end the group with whoever started us.

usage: supervise.py STEM REMOVE -- COMMAND [ARGUMENT ...]

The server's output goes to STEM.out and STEM.err; once it has ended its exit code (negative: the
signal) stands in STEM.exit. REMOVE is a folder that is deleted at our own end ("" for none). We
print `pid N`. Our standard input takes lines `signal N`, and `keep` for a folder that shall stay;
when it closes, also because the process that held it was killed, the whole group is stopped:
SIGTERM, two seconds, SIGKILL.
"""
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys

GRACE_SECONDS = 2
PR_SET_PDEATHSIG = 1
NOT_FOR_US = (signal.SIGINT, signal.SIGHUP)  # meant for the test runner; we end after it


def in_the_child():
    """Signals as usual; and should we be killed ourselves, the kernel ends the server."""
    for number in NOT_FOR_US:
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def signal_group(group, number):
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


def serving(pid):
    try:
        os.write(1, b"pid %d\n" % pid)
    except OSError:
        pass  # who started us is gone already: the end of our input says so too


def note_exit(stem, code):
    with open(stem + ".exit.tmp", "w", encoding="ascii") as out:
        out.write(str(code))
    os.rename(stem + ".exit.tmp", stem + ".exit")


def serve(child, stem):
    """Until our input has closed; the end of the server is only noted. True: remove the folder."""
    ended = os.pidfd_open(child.pid)
    waiting, pending, remove = [0, ended], b"", True
    while True:
        ready, _, _ = select.select(waiting, [], [])
        if ended in ready:
            note_exit(stem, child.wait())
            waiting = [0]
        if 0 not in ready:
            continue
        data = os.read(0, 4096)
        if not data:
            signal_group(child.pid, signal.SIGTERM)
            try:
                child.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            return remove
        *lines, pending = (pending + data).split(b"\n")
        for word, _, number in (line.partition(b" ") for line in lines):
            if word == b"keep":
                remove = False
            elif child.poll() is None:
                child.send_signal(int(number))


def main():
    stem, remove = sys.argv[1:3]
    for number in NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    with open(stem + ".out", "wb") as stdout, open(stem + ".err", "wb") as stderr:
        child = subprocess.Popen(sys.argv[4:], stdin=subprocess.PIPE, stdout=stdout, stderr=stderr,
                                 start_new_session=True, preexec_fn=in_the_child)
    wanted = True
    try:
        serving(child.pid)
        wanted = serve(child, stem)
    finally:
        signal_group(child.pid, signal.SIGKILL)
        child.wait()
        if remove and wanted:
            shutil.rmtree(remove, ignore_errors=True)


if __name__ == "__main__":
    main()
