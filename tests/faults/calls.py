"""Makes each call that shim.c makes fail, for the test of it; the one that fails is named."""
import ctypes
import os

from configs.errors import UserError


def main(argv):
    """In the current folder; returns 0.  Raises UserError."""
    c = ctypes.CDLL(None, use_errno=True)
    c.fopen.restype = ctypes.c_void_p

    def called(name, *arguments, failed=-1):
        value = getattr(c, name)(*arguments)
        if value == failed:
            raise UserError(f"{name}: {os.strerror(ctypes.get_errno())}")
        return value
    one, two, data = b"one", b"two", b"x" * 9
    file = called("open64", one, os.O_RDWR | os.O_CREAT, 0o644)
    called("write", file, data, 9)
    called("pwrite64", file, data, 9, ctypes.c_longlong(4))
    called("fsync", file)
    called("pread64", file, ctypes.create_string_buffer(9), 9, ctypes.c_longlong(0))
    os.close(file)
    called("rename", one, two)
    stream = ctypes.c_void_p(called("fopen", one, b"w", failed=None))
    called("fwrite", data, 1, 9, stream, failed=0)
    called("fflush", stream)
    called("fclose", stream)
    source, target = called("openat", -100, one, os.O_RDONLY), called("open", two, os.O_WRONLY)
    called("read", source, ctypes.create_string_buffer(9), 9)
    called("sendfile", target, source, None, 9)
    return 0
