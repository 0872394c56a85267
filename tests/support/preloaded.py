"""Run console programs without their start-up: a process that has imported TensorFlow and Beam
forks for each call.

    python -m tests.support.preloaded serve SOCKET
    python tests/support/preloaded.py call SOCKET MODULE FUNCTION [ARGUMENT ...]

Thirty commands one after the other spend most of their time on imports; that they can do them is
tested elsewhere.
"""

import importlib
import json
import os
import pathlib
import socket
import sys

_LONGEST = 1 << 16  # bytes of a command line
_DIED = 70  # exit code of a call whose process ended without one


def serve(path: str) -> None:
    """Answers calls, one after the other, until it is killed; imports first, so that `path` is
    there when it is ready.
    """
    for module in (
        "trainer.training.train",
        "trainer.dataset.prepare",
        "trainer.publishing.verify",
        "trainer.publishing.explain",
        "batch_inference.pipeline",
    ):
        importlib.import_module(module)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            connection, _ = listening.accept()
            with connection:
                if not (process := os.fork()):
                    _run(connection)
                os.waitpid(process, 0)


def _run(connection: socket.socket) -> None:
    """Run the caller's program, and send back its exit code."""
    message, streams, _, _ = socket.recv_fds(connection, _LONGEST, 3)
    module, function, folder, arguments = json.loads(message)
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(folder)
        sys.argv = [function, *arguments]
        code = getattr(importlib.import_module(module), function)()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([code or 0]))
        os._exit(0)


def call(path: str, module: str, function: str, *arguments: str) -> int:
    """Let the server fork for a program; return its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        message = json.dumps([module, function, str(pathlib.Path.cwd()), arguments]).encode()
        socket.send_fds(connection, [message], [0, 1, 2])
        answer = connection.recv(1)
    return answer[0] if answer else _DIED


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(call(*sys.argv[2:]))
