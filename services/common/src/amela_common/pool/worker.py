"""The worker's side: ``python -m amela_common.pool.worker FD NAME``, where FD is a socket to the pool.

It ends when the pool closes the socket. When the pool's process is gone altogether it ends at once,
whatever it is doing, so that a server that was killed leaves nothing behind.
"""

import os
import pickle
import select
import signal
import socket
import sys
import threading
import traceback

from amela_common.errors import ConfigError, RequestError
from amela_common.pool.protocol import (
    CHECKPOINT,
    HEADER,
    Broken,
    Command,
    Done,
    Failed,
    Handler,
    Item,
    Reply,
    Setup,
    Work,
    encode,
)


class _AbandonedError(Exception):
    """The pool does not want the rest of this answer."""


class _Link:
    """The socket to the pool. It ends the process once the pool has closed its side."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)

    def receive(self) -> Command:
        (length,) = HEADER.unpack(self._read(HEADER.size))
        message: Command = pickle.loads(self._read(length))  # noqa: S301 (the pool made this socket)
        return message

    def send(self, reply: Reply) -> None:
        try:
            self._connection.sendall(encode(reply))
        except OSError:
            sys.exit()

    def check(self) -> None:
        """Raise if the work in hand was abandoned: nothing else is said to a busy worker."""
        if self._readable.poll(0):
            self.receive()
            raise _AbandonedError

    def _read(self, size: int) -> bytes:
        content = bytearray(size)
        left = memoryview(content)
        while left:
            count = self._connection.recv_into(left)
            if not count:
                sys.exit()
            left = left[count:]
        return bytes(content)


def main() -> None:
    """Serve the pool until it closes the socket."""
    # They reach the whole process group; the server takes them and decides when its workers go.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    threading.Thread(target=_end_with_pool, args=(descriptor,), daemon=True).start()
    link = _Link(socket.socket(fileno=descriptor))
    handler = _set_up(link)
    link.send(Done())
    while True:
        link.send(_work(link, handler))


def _end_with_pool(descriptor: int) -> None:
    hang_up = select.poll()
    hang_up.register(descriptor, 0)
    hang_up.poll()
    os._exit(1)


def _set_up(link: _Link) -> Handler:
    setup = link.receive()
    assert isinstance(setup, Setup)
    sys.path[:] = setup.path
    try:
        handler: Handler = pickle.loads(setup.factory)()  # noqa: S301 (the pool made this socket)
    except ConfigError as error:
        link.send(Failed(error))
    except Exception as error:
        link.send(_broken(error))
    else:
        return handler
    sys.exit(1)


def _work(link: _Link, handler: Handler) -> Reply:
    try:
        while not isinstance(command := link.receive(), Work):
            pass
        for item in handler(command.request):
            if item is CHECKPOINT:
                link.check()
            else:
                link.send(Item(item))
    except _AbandonedError:
        return Done()
    except RequestError as error:
        return Failed(error)
    except Exception as error:
        return _broken(error)
    return Done()


def _broken(error: Exception) -> Broken:
    summary = "".join(traceback.format_exception_only(error)).strip()
    return Broken(summary, "".join(traceback.format_exception(error)))


if __name__ == "__main__":
    main()
