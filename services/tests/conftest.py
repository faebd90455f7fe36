"""Fixtures of all service suites. Other suites reuse them by `from slipway_testing.fixtures import *`."""

import logging

import structlog
from slipway_testing.fixtures import *  # noqa: F403

# Servers run in threads beside the tests: their lines would come out anywhere. Tests of the log start a process.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
