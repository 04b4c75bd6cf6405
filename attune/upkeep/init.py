"""PID 1 of a container: it gets what others orphan, and has to reap it."""

import os
import signal
from typing import NoReturn

_PASSED_ON = {signal.SIGINT, signal.SIGTERM}


def leave_pid_1() -> None:
    """If this process is PID 1, go on in a child, and let PID 1 reap orphans and pass signals on to that child.

    A zombie still counts as a member of its process group, so that a stop would wait for it. asyncio waits for its own
    children only, and whoever waits for all would take those from it.
    """
    if os.getpid() != 1:
        return
    # Blocked before the fork, so that none is lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    child = os.fork()
    if child:
        _mind(child)
    # A session of its own: Ctrl-C on a terminal is for PID 1, which passes it on, and would otherwise arrive twice.
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_PASSED_ON, signal.SIGCHLD})


def _mind(child: int) -> NoReturn:
    while True:
        number = signal.sigwait({*_PASSED_ON, signal.SIGCHLD})
        if number in _PASSED_ON:
            os.kill(child, number)
            continue
        code = _reap(child)
        if code is not None:
            # As shells tell of a signal. The kernel ends whatever else there is.
            os._exit(code if code >= 0 else 128 - code)


def _reap(child: int) -> int | None:
    """Reap all that has ended; the exit code of `child`, if it is among that."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
