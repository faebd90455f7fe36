import sys

from slipway_kit.main import run

from slipway_api.app import create_app
from slipway_api.settings import Settings

if __name__ == "__main__":
    sys.exit(run("slipway_api", Settings, create_app))
