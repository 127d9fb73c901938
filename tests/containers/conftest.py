"""One engine and one stack for all tests of containers, gone after the last of them.

Where they rest on stand-ins: see `standins`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.containers import standins
from tests.containers.engine import Engine, NoEngineError, engine
from tests.containers.stack import Stack


@pytest.fixture(scope="package")
def docker() -> Iterator[Engine]:
    """An engine. Without one a developer's tests are skipped; CI's fail."""
    try:
        with engine() as found:
            if found.ours:
                standins.ensure(found)
            yield found
    except NoEngineError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="package")
def images(docker: Engine) -> Stack:
    """The stack's images, built; nothing runs yet."""
    built = Stack(docker)
    built.compose("build", "--quiet", seconds=600)
    return built


@pytest.fixture(scope="package")
def stack(images: Stack) -> Iterator[Stack]:
    """The whole product, from nothing, up and healthy."""
    images.down()
    shutil.rmtree(images.secrets, ignore_errors=True)
    images.compose("run", "--rm", "secrets")
    try:
        images.up()
        yield images
    finally:
        images.down()
