"""One server for all tests of this folder, over the bundled models, with two strategies."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from fastapi import FastAPI

from ssd_lab.serve.app import make_app
from ssd_lab.serve.config import ServeConfig
from ssd_lab.serve.served import ServedModels, load_served
from ssd_lab.serve.server import running


@pytest.fixture(scope="package")
def config() -> ServeConfig:
    """A free port."""
    return ServeConfig(port=0, request_timeout_s=60)


@pytest.fixture(scope="package")
def models() -> ServedModels:
    """The bundled pair under two strategies; the server closes them."""
    return load_served(strategies=["async_tree", "prompt_lookup"], draft_link="inline")


@pytest.fixture(scope="package")
def app(models: ServedModels, config: ServeConfig) -> FastAPI:
    """The application."""
    return make_app(models, config)


@pytest.fixture(scope="package")
def url(app: FastAPI, config: ServeConfig) -> Iterator[str]:
    """Where it runs."""
    with running(app, config) as found:
        yield found


@pytest.fixture(scope="package")
def client(url: str) -> Iterator[openai.OpenAI]:
    """The client that everybody has."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made
