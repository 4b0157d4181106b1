"""Becomes Triton: run as a script by the helper, it limits itself and then execs what it was given.

    launch.py PARENT-PID USER|- DESCRIPTOR-LIMIT COMMAND [ARGUMENT…]

It stands between because all of this must happen in the new process, and running Python between fork and
exec of a threaded parent is not safe. Standard library only.
"""

from __future__ import annotations

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
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold request bodies
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = descriptors if hard == resource.RLIM_INFINITY else min(descriptors, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123 - no pathlib here
        file.write("500")  # short of memory, the kernel takes Triton before the gate
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


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, KeyError, ValueError, IndexError) as error:
        sys.stderr.write(f"lotabots-launch: {error}\n")
        sys.exit(1)
