#!/usr/bin/env bash
# Sets up the environment and runs the checks and the test suite.
#
#   launch/test.sh                    everything
#   launch/test.sh tests/models       arguments go to pytest
#
# Two processes share the test files out; GLIOMOE_TEST_PROCESSES=0 runs them in this one.
# Tests on real MRI run where GLIOMOE_TEST_DATA (by default ../shared/data) holds some.

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

ruff check .
ruff format --check .
mypy
exec python -m pytest -n "${GLIOMOE_TEST_PROCESSES:-2}" --dist loadfile --durations 25 "$@"
