"""Memory of a GPU that processes of one host map, each for its own GPU to write to; made through CUDA's driver.

What one process has mapped stays there when the process that made it is killed: a kernel that still writes to it harms
nobody. (Torch's allocator gives no such memory; its symmetric memory does, and makes NVLink multicast objects with it.)
"""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from ctypes import byref

import torch

from ssd_lab.errors import RankError

PINNED, ON_DEVICE, AS_FILE, READ_AND_WRITE = 1, 1, 1, 3  # CU_MEM_...: kind, place, handle and access


class _Location(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("device", ctypes.c_int)]


class _Properties(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int),
        ("handles", ctypes.c_int),
        ("location", _Location),
        ("metadata", ctypes.c_void_p),
        ("flags", ctypes.c_ubyte * 8),
    ]


class _Access(ctypes.Structure):
    _fields_ = [("location", _Location), ("flags", ctypes.c_int)]


class DeviceMemory:
    """Mapped for kernels of one device. Close it when none of them uses it any more.

    address: where they find it. num_bytes: its size, at least what was asked for.
    """

    def __init__(self, device: torch.device, handle: ctypes.c_uint64, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._handle = handle
        size, address, location = ctypes.c_size_t(num_bytes), ctypes.c_uint64(), _Location(ON_DEVICE, device.index)
        with ExitStack() as undone:
            undone.callback(_call, "cuMemRelease", handle)
            none = ctypes.c_uint64(0)
            _call("cuMemAddressReserve", byref(address), size, ctypes.c_size_t(0), none, none)
            undone.callback(_call, "cuMemAddressFree", address, size)
            _call("cuMemMap", address, size, ctypes.c_size_t(0), handle, none)
            undone.callback(_call, "cuMemUnmap", address, size)
            access = _Access(location, READ_AND_WRITE)
            _call("cuMemSetAccess", address, size, byref(access), ctypes.c_size_t(1))
            self._undone = undone.pop_all()
        self.address = address.value

    @classmethod
    def made(cls, device: torch.device, num_bytes: int) -> DeviceMemory:
        """Of this device, zeros. Raises RankError where the driver has none of that kind."""
        torch.cuda.synchronize(device)  # the device's context is there, and this thread's
        properties = _Properties(PINNED, AS_FILE, _Location(ON_DEVICE, device.index))
        step, handle = ctypes.c_size_t(), ctypes.c_uint64()
        _call("cuMemGetAllocationGranularity", byref(step), byref(properties), ctypes.c_int(0))
        num_bytes = -(-num_bytes // step.value) * step.value
        _call("cuMemCreate", byref(handle), ctypes.c_size_t(num_bytes), byref(properties), ctypes.c_uint64(0))
        memory = cls(device, handle, num_bytes)
        words = ctypes.c_size_t(num_bytes // 4)
        _call("cuMemsetD32_v2", ctypes.c_uint64(memory.address), ctypes.c_uint(0), words)
        torch.cuda.synchronize(device)
        return memory

    def file(self) -> int:
        """A descriptor by which another process maps it; the caller closes it."""
        descriptor = ctypes.c_int()
        _call(
            "cuMemExportToShareableHandle", byref(descriptor), self._handle, ctypes.c_int(AS_FILE), ctypes.c_uint64(0)
        )
        return descriptor.value

    @classmethod
    def mapped(cls, device: torch.device, descriptor: int, num_bytes: int) -> DeviceMemory:
        """Another process's, for this device. Raises RankError where the device cannot reach it."""
        handle, file = ctypes.c_uint64(), ctypes.c_void_p(descriptor)
        _call("cuMemImportFromShareableHandle", byref(handle), file, ctypes.c_int(AS_FILE))
        return cls(device, handle, num_bytes)

    def close(self) -> None:
        """Unmap it; calling it twice is fine. The memory is free once all have unmapped it."""
        self._undone.close()


def _call(name: str, *arguments: object) -> None:
    """Call the driver. Raises RankError with what it says."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RankError(f"there is no CUDA driver: {error}") from error
    code = getattr(driver, name)(*arguments)
    if code:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(ctypes.c_int(code), byref(text))
        raise RankError(f"{name}: {(text.value or b'unknown').decode()} (error {code} of the CUDA driver)")
