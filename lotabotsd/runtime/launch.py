"""Becomes Triton: run as a script by the helper, it limits itself and then execs what it was given.

    launch.py PARENT-PID USER|- DESCRIPTOR-LIMIT COMMAND [ARGUMENT…]

It stands between because all of this must happen in the new process, and running Python between fork and
exec of a threaded parent is not safe. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def main(arguments: list[str]) -> None:
    """Does not return: execs, or exits with 1 and a line that begins with `lotabots-launch:`."""
    parent, user, descriptors = int(arguments[0]), arguments[1], int(arguments[2])
    command = arguments[3:]
    os.umask(0o007)  # sockets for the group: connecting needs write permission
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):  # a unit may forbid the call, and set the limit
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold request bodies
    raise_descriptors(descriptors)
    prefer_as_victim()
    if user != "-":
        account = pwd.getpwnam(user)
        os.initgroups(user, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # After setuid, which clears it. A parent that died before this line is seen by the comparison.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise OSError("the helper is gone")
    os.execve(command[0], command, dict(os.environ))  # noqa: S606 - no shell is what we want


def raise_descriptors(wanted: int) -> None:
    """As many open files as wanted, as far as we may; fewer only bound the number of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < limit:
        with contextlib.suppress(OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def prefer_as_victim() -> None:
    """Short of memory, the kernel shall take Triton before the gate."""
    with (
        contextlib.suppress(OSError),  # a unit may have set more already
        open("/proc/self/oom_score_adj", "w", encoding="ascii") as file,  # noqa: PTH123 - pathlib is slow to load
    ):
        file.write("500")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, KeyError, ValueError, IndexError) as error:
        sys.stderr.write(f"lotabots-launch: {error}\n")
        sys.exit(1)
