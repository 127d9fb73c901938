"""`python -m services.quota`: serve until a signal."""

from servicekit.config import load
from servicekit.runner import run
from services.quota.config import QuotaSettings
from services.quota.server import compose

if __name__ == "__main__":
    run("quota", load(QuotaSettings), compose)
