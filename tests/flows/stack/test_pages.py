"""What a person sees after a run: the pages of both servers, opened in headless Chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tasks.pipeline import STAGES

from .conftest import TINY, Stack

CHROMIUM = shutil.which("chromium")
_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")


@pytest.fixture
def page() -> Iterator[Page]:
    """An empty page of a browser that asks nobody but the servers of this test."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        made = browser.new_page(viewport={"width": 1500, "height": 1100})
        made.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield made
        browser.close()


@pytest.mark.pipeline
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_both_pages_show_the_run(stack: Stack, page: Page) -> None:
    assert stack.prorec("up", "--detach", *stack.options).returncode == 0
    parameters = {"experiment": {**TINY, "collaborative": {"epochs": 2, "dim": 16}}}
    done = stack.prefect("deployment", "run", "prorec/full", "--params", json.dumps(parameters), "--watch")
    assert done.returncode == 0, done
    flow_run = stack.ask("POST", "/flow_runs/filter", json={"limit": 1})[0]
    (generator,) = stack.runs("train_generator")
    whole = generator.data.tags["mlflow.parentRunId"]
    prefect, mlflow = (address.rstrip("/") for address in stack.pages)

    page.goto(f"{prefect}/runs/flow-run/{flow_run['id']}?tab=Task%20Runs")
    expect(page.get_by_text("Completed").first).to_be_visible()
    for stage in STAGES:
        expect(page.get_by_text(f"{stage} · demo").first).to_be_visible()

    experiment = generator.info.experiment_id
    page.goto(f"{mlflow}/#/experiments/{experiment}/runs/{whole}")
    expect(page.get_by_text("test/fused/ndcg_at_10", exact=True).first).to_be_visible()
    for stage in STAGES:
        expect(page.get_by_text(f"{stage} · demo").first).to_be_visible()
    page.goto(f"{mlflow}/#/experiments/{experiment}/runs/{generator.info.run_id}/artifacts")
    page.get_by_text("artifact", exact=True).first.click()
    for file in ("model.safetensors", "config.json", "manifest.json"):
        expect(page.get_by_text(file).first).to_be_visible()
