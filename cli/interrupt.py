"""Ctrl-C during an answer stops the answer, at once and nothing else."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from drift_edge.events import CancelToken


@contextmanager
def cancel_on_interrupt(cancel: CancelToken) -> Iterator[None]:
    """While this lasts, Ctrl-C sets `cancel` and raises nothing.

    Python runs a signal handler between two steps of the main thread, which may be deep in a long decode. So a small
    thread waits on the wake-up socket that Python's C handler writes to, and sets the flag while the decode runs.
    Where Ctrl-C is ignored (a background job) it stays so.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        while numbers := reader.recv(64):
            if signal.SIGINT in numbers:
                cancel.cancel()

    watcher = threading.Thread(target=watch, name="ctrl-c", daemon=True)
    watcher.start()
    handler = signal.signal(signal.SIGINT, lambda *_: cancel.cancel())
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)
        writer.close()
        watcher.join()
        reader.close()
