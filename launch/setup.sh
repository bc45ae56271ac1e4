# Sourced by the other scripts: goes to the checkout, brings its environment up to date and puts
# `gliomoe` on the path. Installs uv into the checkout where the machine has none.

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

if ! command -v uv >/dev/null; then
    if [ ! -x .uv/bin/uv ]; then
        echo "Installing uv into .uv ..." >&2
        python3 -m pip install --quiet --target .uv uv || {
            echo "setup: needs uv, or python3 (3.11 to 3.13) with pip; install either and repeat" >&2
            exit 2
        }
    fi
    export PATH="$PWD/.uv/bin:$PATH"
fi

# Bytecode is compiled once here: importing MONAI alone takes three times as long without it.
uv sync --frozen --compile-bytecode --quiet || {
    echo "setup: the environment could not be installed; is a package index within reach?" >&2
    exit 1
}
