"""`python -m services.auth`: runs the service until a signal."""

from servicekit.config import load
from servicekit.runner import run
from services.auth.config import AuthSettings
from services.auth.server import compose

if __name__ == "__main__":
    run("auth", load(AuthSettings), compose)
