import sys

from slipway_kit.main import run

from slipway_auth.app import create_app
from slipway_auth.settings import Settings

if __name__ == "__main__":
    sys.exit(run("slipway_auth", Settings, create_app))
