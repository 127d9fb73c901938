"""`python -m services.logger`."""

from functools import partial

from servicekit.config import load
from servicekit.runner import run
from services.logger.config import LoggerSettings
from services.logger.server import compose

if __name__ == "__main__":
    settings = load(LoggerSettings)
    run("logger", settings, partial(compose, settings))
