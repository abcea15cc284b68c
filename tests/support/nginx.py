"""nginx as a file server on the loopback: a real server, for what one that is made for tests can't show."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.cluster.host import Package, find_program, require
from tests.support.ports import free_port

PACKAGE: Final = Package("nginx-light", "nginx", "a real web server")
SECONDS: Final = 10
_CONFIG: Final = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/errors warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  limit_conn_zone $binary_remote_addr zone=clients:1m;
  server {{
    listen 127.0.0.1:{port};
    root {root};
    {directives}
  }}
}}
"""


@contextmanager
def nginx(root: Path, directives: str = "", port: int | None = None) -> Iterator[str]:
    """Serve a folder while the context lasts; yields the address, with a slash at its end.

    Parameters
    ----------
    directives
        What else stands in the configuration's `server`; `limit_conn clients` counts what one address has open.
    port
        None: any that is free.

    Raises
    ------
    HarnessError
        It isn't there, and can't be installed.
    """
    require((PACKAGE,))
    with TemporaryDirectory() as folder:
        port = port or free_port()
        config = Path(folder, "nginx.conf")
        config.write_text(_CONFIG.format(folder=folder, port=port, root=root, directives=directives))
        program = find_program("nginx") or "nginx"
        errors = Path(folder, "errors")
        process = subprocess.Popen([program, "-c", config, "-p", folder, "-e", errors])
        try:
            _await(process, port)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait()


def _await(process: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return
