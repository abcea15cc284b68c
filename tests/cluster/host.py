"""What the harness asks of the machine: distribution packages, and how its Python index is set up."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment

from tests.cluster.commands import run
from tests.cluster.errors import HarnessError
from tests.cluster.progress import say, step

CA_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
DEBIAN_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
CNI_PLUGINS = "/usr/lib/cni"
"""Where Debian and Ubuntu put them."""
INDEX_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy")
"""Settings of pip that tell where packages come from, and mean the same on another machine."""


def architecture() -> str:
    """This machine's, as images and Kubernetes name it: that of all images built here."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


@dataclass(frozen=True)
class Package:
    """A distribution package, the program or folder that shows it is there, and why it is wanted."""

    name: str
    shows: str
    reason: str

    def present(self) -> bool:
        return (
            Path(self.shows).exists() if self.shows.startswith("/") else find_program(self.shows) is not None
        )


NODE_PACKAGES = (
    Package("runc", "runc", "runs the containers"),
    Package("containernetworking-plugins", f"{CNI_PLUGINS}/ptp", "gives pods their network"),
    Package("iptables", "iptables", "Services, and pods' way to the outside"),
    Package("iproute2", "ip", "joins the node to the host"),
    Package("mount", "mount", "mounts inside the node"),
    Package("util-linux", "nsenter", "keeps the node in namespaces of its own"),
)
IMAGE_PACKAGES = (
    Package("buildah", "buildah", "builds images without an engine"),
    Package("mmdebstrap", "mmdebstrap", "makes the base image from Debian's packages"),
    Package("debian-archive-keyring", DEBIAN_KEYS, "checks Debian's packages"),
)
COMPILER_PACKAGES = (
    Package("gcc", "gcc", "compiles llama.cpp"),
    Package("g++", "g++", "compiles llama.cpp"),
    Package("patch", "patch", "mends llama.cpp before it is compiled"),
)


def find_program(name: str) -> str | None:
    """Find *name* as root would: the administrators' folders count too."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def require(packages: tuple[Package, ...]) -> None:
    """Install what is missing, saying first what and why.

    Raises
    ------
    HarnessError
        Something is missing and can't be installed here.
    """
    missing = [package for package in packages if not package.present()]
    if not missing:
        return
    names = " ".join(package.name for package in missing)
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise HarnessError(f"missing programs; install these packages as root: {names}")
    say("  to be installed on this machine with apt-get:")
    for package in missing:
        say(f"    {package.name}: {package.reason}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    patient = ("-o", "DPkg::Lock::Timeout=300")  # a machine that has just started may be updating itself
    with step(f"installing {names}"):
        run(["apt-get", *patient, "update", "-q"], env=quiet)
        arguments = [*patient, "install", "-q", "-y", "--no-install-recommends"]
        run(["apt-get", *arguments, *(package.name for package in missing)], env=quiet)


def never_proxy(address: str) -> None:
    """Let this process's clients ask *address* directly: ranges, as they stand in NO_PROXY, few of them understand."""
    lists = [os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    if "*" not in lists:
        known = [each for one in lists for each in one.split(",") if each]
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(dict.fromkeys([*known, address]))


def _reachable(proxy: str) -> bool:
    """Whether others than this machine itself find *proxy*: not so one on its loopback."""
    return _parts(proxy).hostname not in {None, *LOOPBACK}


def _parts(proxy: str) -> SplitResult:
    return urlsplit(proxy if "://" in proxy else f"//{proxy}")


def proxies_of_builds() -> dict[str, str]:
    """This machine's, as variables for what runs in an image's build: apt reads the names in small letters alone."""
    found = getproxies_environment()
    ways = {f"{scheme}_proxy": found.get(scheme, "") for scheme in ("http", "https")}
    ways = {name: proxy for name, proxy in ways.items() if _reachable(proxy)}
    return {**ways, "no_proxy": found.get("no", "")} if ways else {}


def proxies() -> dict[str, str]:
    """This machine's, as environment variables for pods.

    Left out are those on its loopback, which no pod reaches, and those with a password, which everybody could read there.
    """
    found = getproxies_environment()
    if found.get("no") == "*":
        return {}
    ways = {}
    for scheme in ("http", "https"):
        proxy = found.get(scheme, "")
        if _reachable(proxy) and _parts(proxy).password is None:
            ways[f"{scheme.upper()}_PROXY"] = proxy
    direct = [each for each in found.get("no", "").split(",") if each]
    return {**ways, "NO_PROXY": ",".join([*direct, ".svc", ".cluster.local"])} if ways else {}


@dataclass(frozen=True)
class PythonIndex:
    """Where Python packages come from on this machine, in terms that hold in a pod too.

    ``settings`` are pip's own names and values; none means pip's default index.
    ``ca_bundle`` holds the authorities this machine trusts.
    """

    settings: Mapping[str, str]
    ca_bundle: Path | None

    @property
    def env(self) -> dict[str, str]:
        """The settings as environment variables (``PIP_INDEX_URL`` and the like)."""
        return {f"PIP_{name.upper().replace('-', '_')}": value for name, value in self.settings.items()}

    def pip_conf(self, ca_bundle: str) -> str:
        """A configuration file for pip on another machine, where the authorities lie at *ca_bundle*."""
        lines = ["[global]", "timeout = 180", "disable-pip-version-check = true"]
        if self.ca_bundle is not None:
            lines.append(f"cert = {ca_bundle}")
        lines += [f"{name} = {' '.join(value.split())}" for name, value in self.settings.items()]
        return "\n".join(lines) + "\n"


def host_index() -> PythonIndex:
    """How pip is set up here, by file or by environment; what only holds here (local folders) is left out."""
    effective: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):  # later ones win, as pip has it
        for line in run([sys.executable, "-m", "pip", "config", "list"]).splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section):
                effective[name.removeprefix(section)] = value.strip("'\"").replace("\\n", " ")
    certificate = Path(effective["cert"]) if "cert" in effective else None
    bundles = [certificate] if certificate else [path for path in CA_BUNDLES if path.exists()]
    settings = {name: effective[name] for name in INDEX_SETTINGS if effective.get(name)}
    return PythonIndex(settings, bundles[0] if bundles else None)
