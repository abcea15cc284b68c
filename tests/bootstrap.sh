#!/usr/bin/env bash
# Makes the virtual environment: what the Makefile needs before any Python of ours can run.
#
#   bootstrap.sh --which-python     prints a Python >= 3.11 that is on the PATH, or that uv knows of
#   bootstrap.sh PYTHON VENV        installs the pinned dependencies, the built llama-cpp-python wheel and this checkout
set -euo pipefail
cd "$(dirname "$0")/.."

which_python() {
  local candidate
  for candidate in python3.11 python3.12 python3.13 python3.14 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  if command -v uv >/dev/null; then uv python find --no-project '>=3.11' 2>/dev/null || true; fi
}

if [ "${1:-}" = --which-python ]; then which_python; exit; fi

python=$1 venv=$2

install_packages() { # what is missing, said before it is done
  local missing=("$@")
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Missing: ${missing[*]}. Install them with your system's package manager (here it needs root and apt), then run this again." >&2
    exit 1
  fi
  echo "Installing system packages: ${missing[*]}"
  local patient=(-o DPkg::Lock::Timeout=300) # a machine that has just started may be updating itself
  apt-get "${patient[@]}" update -qq
  DEBIAN_FRONTEND=noninteractive apt-get "${patient[@]}" install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

if [ -z "$python" ] && command -v uv >/dev/null; then
  echo "No Python 3.11 or newer was found: uv installs one"
  uv python install --quiet 3.12
  python=$(which_python)
fi
missing=()
[ -n "$python" ] || missing+=(python3 python3-venv python3-dev)
[ -z "$python" ] || "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
install_packages "${missing[@]}"
[ -n "$python" ] || python=$(which_python)
[ -n "$python" ] || { echo "No Python 3.11 or newer was found: install one, or name it: make PYTHON=/path/to/python3 ..." >&2; exit 1; }

echo "Python environment: $venv ($("$python" --version), dependencies pinned by hash)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
wheel=$("$venv/bin/python" -m tests.cluster wheel)
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$wheel"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
