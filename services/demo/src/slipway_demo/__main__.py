import sys

from slipway_kit.main import run

from slipway_demo.app import create_app
from slipway_demo.settings import Settings

if __name__ == "__main__":
    sys.exit(run("slipway_demo", Settings, create_app))
