"""How a program on this machine reaches a Service: by its cluster IP on the single node, else by a port-forward."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import Cluster, HarnessError


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def service_url(cluster: Cluster, namespace: str, name: str) -> Iterator[str]:
    """A URL under which the Service answers while the block runs."""
    query = "jsonpath={.spec.clusterIP} {.spec.ports[0].port}"
    address, port = cluster.kubectl("get", "service", name, "-n", namespace, "-o", query).split()
    if cluster.kind == "single-node" and answers(address, int(port)):
        yield f"http://{address}:{port}"
        return
    local = free_port()
    argv = cluster.kubectl_argv("port-forward", "-n", namespace, f"service/{name}", f"{local}:{port}")
    forward = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if answers("127.0.0.1", local):
                break
            time.sleep(0.1)
        else:
            raise HarnessError(f"kubectl port-forward to service/{name} didn't answer on port {local}")
        yield f"http://127.0.0.1:{local}"
    finally:
        forward.terminate()
        forward.wait()
