"""`python -m services.signer`."""

from servicekit.config import load
from servicekit.runner import run
from services.signer.config import SignerSettings
from services.signer.server import compose

run("signer", load(SignerSettings), compose)
