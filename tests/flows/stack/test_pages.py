"""What a person sees after a run: the pages of both servers, opened in headless Chromium."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from prorec.tasks.stages.pipeline import STAGES
from prorec.tasks.tracking.mlflow_runs import HEADLINE, NOTE_TAG, path_of_page, path_of_table
from tests.tiny import tiny

from .conftest import Stack

CHROMIUM = shutil.which("chromium")
_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser that asks nobody but the servers of this test."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        expect.set_options(timeout=60_000)
        yield started
        started.close()


@pytest.mark.pipeline
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_both_pages_show_the_run(stack: Stack, browser: Browser) -> None:
    assert stack.up().returncode == 0
    parameters = {"experiment": tiny({"collaborative.epochs": 2})}
    done = stack.prefect("deployment", "run", "prorec/full", "--params", json.dumps(parameters), "--watch")
    assert done.returncode == 0, done
    flow_run = stack.ask("POST", "/flow_runs/filter", json={"limit": 1})[0]
    (generator,) = stack.runs("train_generator")
    whole = generator.data.tags["mlflow.parentRunId"]
    note = stack.mlflow.get_run(whole).data.tags[NOTE_TAG]
    prefect, mlflow = (address.rstrip("/") for address in stack.pages)

    user, password = stack.login
    credentials = {"username": user, "password": password, "origin": mlflow}
    page = browser.new_page(viewport={"width": 1500, "height": 1100}, http_credentials=credentials)
    page.set_default_timeout(60_000)
    # A link from MLflow's page; Prefect's asks for both in one field and then goes where the link led.
    (link,) = re.findall(rf"\[flow run\]\(({prefect}\S*{flow_run['id']})\)", note)
    page.goto(link)
    page.get_by_placeholder("admin:pass").fill(f"{user}:{password}")
    page.get_by_placeholder("admin:pass").press("Enter")
    expect(page.get_by_text("Completed").first).to_be_visible()
    page.goto(f"{link}?tab=TaskRuns")
    for stage in STAGES:
        expect(page.get_by_text(f"{stage} · demo").first).to_be_visible()

    experiment = generator.info.experiment_id
    # As somebody who was never here: the pages of trainings, with what counts first.
    page.goto(f"{mlflow}/{path_of_table(experiment)}")
    for heading in (*HEADLINE.values(), "prorec.scorer"):
        expect(page.get_by_text(heading, exact=True).first).to_be_visible()
    page.goto(f"{mlflow}/{path_of_page(experiment, whole)}")
    expect(page.get_by_text("demo/sequences").first).to_be_visible()
    expect(page.get_by_text("test/fused/ndcg_at_10", exact=True).first).to_be_visible()
    for stage in STAGES:
        expect(page.get_by_text(f"{stage} · demo").first).to_be_visible()
    page.goto(f"{mlflow}/#/experiments/{experiment}/runs/{generator.info.run_id}/artifacts")
    page.get_by_text("artifact", exact=True).first.click()
    for file in ("model.safetensors", "config.json", "manifest.json"):
        expect(page.get_by_text(file).first).to_be_visible()
