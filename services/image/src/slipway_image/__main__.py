import sys

from slipway_kit.main import run

from slipway_image.app import create_app
from slipway_image.settings import Settings
from slipway_image.sweep import sweep_command

if __name__ == "__main__":
    sys.exit(run("slipway_image", Settings, create_app, commands={"sweep": sweep_command}))
