"""Takes rights away from the process that runs it, so that it may execute a model's code. Standard library only.

Limits on CPU time, memory, file sizes and processes hold on every POSIX system. Linux adds, without needing any right:
Landlock (writing only inside one folder) and a seccomp filter (no sockets, no new processes, no signals to others).
A Mac gets the like from the program that starts this one, see `sandbox.py`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 1, 22, 24, 38, 2
SIGKILL = 9
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# What a function that computes something never needs: name -> numbers on x86_64 and aarch64 (None: it has none).
# Changes of mode, owner and times are here because Landlock does not cover them, shared memory because it would
# outlive the process, io_uring because it does the work of the other calls past this filter.
DENIED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "socketpair": (53, 199), "io_uring_setup": (425, 425),
    "clone": (56, 220), "clone3": (435, 435), "fork": (57, None), "vfork": (58, None),
    "execve": (59, 221), "execveat": (322, 281), "unshare": (272, 97), "setns": (308, 268),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "setrlimit": (160, 164), "prlimit64": (302, 261), "setpriority": (141, 140), "sched_setaffinity": (203, 122),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "memfd_create": (319, 279),
    "add_key": (248, 217), "keyctl": (250, 219), "request_key": (249, 218),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
}  # fmt: skip


def confine(folder: str, *, cpu_s: int, memory_bytes: int, file_bytes: int) -> list[str]:
    """Limit this process for good. Returns what holds beyond the limits: files, network, processes.

    folder: where it may still write. cpu_s: of CPU time. memory_bytes: of address space. file_bytes: of one file.
    """
    for name, limit in (
        ("RLIMIT_CPU", cpu_s),
        ("RLIMIT_AS", memory_bytes),  # a Mac does not enforce it: there the parent watches
        ("RLIMIT_FSIZE", file_bytes),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_NPROC", 0),  # no fork and no thread, except for root
    ):
        _limit(name, limit)
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.geteuid() == 0:
        _drop_capabilities(libc)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return []
    holds = ["files"] if _landlock(libc, folder) else []
    return [*holds, "network", "processes"] if _seccomp(libc) else holds


def _limit(name: str, wanted: int) -> None:
    kind = getattr(resource, name, None)
    if kind is None:
        return
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    # past the soft limit of CPU time comes a signal that a program may catch, a second later one that it may not
    above = wanted + 1 if name == "RLIMIT_CPU" and hard == resource.RLIM_INFINITY else wanted
    try:
        resource.setrlimit(kind, (wanted, above))
    except (ValueError, OSError):  # this system has the name but not the limit
        return


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Root without capabilities still owns root's files (Landlock guards those), but can no longer mount or trace."""
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("Ii", 0x20080522, 0)  # version 3, this process
    libc.capset(header, struct.pack("6I", *[0] * 6))


def _landlock(libc: ctypes.CDLL, folder: str) -> bool:
    """Deny every change of the file system outside the folder, on kernels that have Landlock."""
    create, add_rule, restrict = 444, 445, 446
    version = libc.syscall(create, None, 0, 1)
    if version < 1:
        return False
    # bit 1 writes; 4 to 12 remove and make entries; 13 (version 2) moves between folders, 14 (version 3) truncates
    rights = 1 << 1 | sum(1 << bit for bit in range(4, 13))
    rights |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    attributes = struct.pack("Q", rights)
    rules = libc.syscall(create, attributes, len(attributes), 0)
    if rules < 0:
        return False
    for path, allowed in ((folder, rights), ("/dev/null", 1 << 1)):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        added = libc.syscall(add_rule, rules, 1, struct.pack("=Qi", allowed, opened), 0)
        os.close(opened)
        if added != 0:
            os.close(rules)
            return False
    done: int = libc.syscall(restrict, rules, 0)
    os.close(rules)
    return done == 0


def _seccomp(libc: ctypes.CDLL) -> bool:
    """Answer the denied calls with "not permitted"; a call made in another machine's convention ends the process."""
    machine = platform.machine()
    if machine not in AUDIT_ARCH or struct.calcsize("P") != 8:
        return False
    column = 0 if machine == "x86_64" else 1
    numbers = sorted(number for row in DENIED.values() if (number := row[column]) is not None)
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | 1, 0x80000000
    program = [
        (load, 0, 0, 4),  # the convention
        (equal, 1, 0, AUDIT_ARCH[machine]),
        (answer, 0, 0, kill),
        (load, 0, 0, 0),  # the number of the call
        (at_least, len(numbers) + 1, 0, 0x40000000),  # x86_64's 32-bit convention counts from here
        *((equal, len(numbers) - index, 0, number) for index, number in enumerate(numbers)),
        (answer, 0, 0, allow),
        (answer, 0, 0, refuse),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filters = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    done: int = libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filters, 0, 0)
    return done == 0
