"""The page of the service: its files, and what a person does with it in headless Chromium."""

from __future__ import annotations

import re
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import uvicorn
from playwright.sync_api import Browser, expect, sync_playwright
from playwright.sync_api import Page as Tab

from prorec.flows.service import page
from prorec.flows.service.batching import Loaded
from prorec.tasks.registry.lists import ListStore
from prorec_core.data.conditions import Attribute
from tests.html_page import Page
from tests.tiny_model import IDS, TITLES, tiny_recommender

from .conftest import GIVEN, TOKEN, Registry, Service, version_of

FOLDER = Path(page.__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: nobody looked at the page")


def test_the_page_and_its_files_stand_by_themselves(service: Service) -> None:
    answer = service.client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    looked_at = Page(answer.text)
    assert not looked_at.open and len(looked_at.ids) == len(set(looked_at.ids))
    assert all(link and link.startswith("/page/") for link in looked_at.links)
    for link in looked_at.links:
        assert service.client.get(link or "").status_code == 200
    assert not [
        tag for tag, given in looked_at.tags if "style" in given or any(name.startswith("on") for name in given)
    ]
    assert "<style" not in answer.text and not re.search(r"<script(?![^>]*src=)", answer.text)
    ids = set(looked_at.ids)
    for path in FOLDER.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacent|document\.write|Storage|cookie", text), path
        assert set(re.findall(r'byId\("([^"]+)"\)', text)) <= ids
        assert len(text.splitlines()) < 300
    for name in ("none.js", "__init__.py", "..%2Fapp.py", "a" * 200):
        assert service.client.get(f"/page/{name}").status_code in (404, 422)


@contextmanager
def served(homes: Sequence[str] | None = None, started: list[Service] | None = None) -> Iterator[str]:
    """The service around a real model behind a server; by default at home, on loopback. `started` gets it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        service = Service(Registry(), homes=[address] if homes is None else homes)
        if started is not None:
            started.append(service)
        service.keeper.current = Loaded(version_of(1), tiny_recommender())
        server = uvicorn.Server(uvicorn.Config(service.app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://{address}"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        expect.set_options(timeout=15_000)
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, address: str, **more: Any) -> Iterator[Tab]:
    """The page in a tab whose scripts must not fail."""
    tab, problems = browser.new_page(**more), []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on(
        "console",
        lambda line: (
            problems.append(line.text) if line.type == "error" and not re.search("40[19]|503", line.text) else None
        ),
    )
    tab.goto(address)
    try:
        yield tab
    finally:
        tab.close()
    assert not problems


def expect_list(tab: Tab, scorer: str, titles: list[str]) -> None:
    """What a list shows, once it does."""
    expect(tab.locator(f"article[aria-labelledby=list-{scorer}] li .title")).to_have_text(titles)


def expect_history(tab: Tab, *items: int) -> None:
    expect(tab.locator("#history .title")).to_have_text([TITLES[item] for item in items])


@needs_browser
def test_a_history_is_put_together_with_the_keyboard(browser: Browser, artifacts_folder: Path) -> None:
    with served() as address, opened(browser, address) as tab:
        expect(tab.locator("#lists article")).to_have_count(1)
        expect_list(tab, "popular", TITLES[:10])
        expect(tab.locator("#model")).to_have_text("prorec-shop/1: 24 items, 2 of them new")
        # What is found for less of the text would put the choice back to the first.
        with tab.expect_response(lambda answer: answer.url.endswith("text=tea%20number")):
            tab.locator("#search").press_sequentially("tea number")
        expect(tab.locator("#found li")).to_have_count(8)
        for key in ("ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
            tab.keyboard.press(key)
        tab.keyboard.type("pot number 16")
        expect(tab.locator("#found li")).to_have_count(1)
        tab.keyboard.press("Enter")
        expect(tab.locator("#history li")).to_have_count(2)
        expect_history(tab, 1, 16)
        assert tab.locator("#history b, #lists b").count() == 0, "a title is text, whatever it looks like"
        expect(tab.locator("#lists article")).to_have_count(5)
        answer = tab.request.post(f"{address}/recommend", data={"histories": [{"history": [IDS[1], IDS[16]]}]})
        expect_list(tab, "ranked", [item["title"] for item in answer.json()["results"][0]["items"]])
        tab.get_by_label(f"Move {TITLES[16]} up").focus()
        tab.keyboard.press("Enter")
        expect_history(tab, 16, 1)
        tab.get_by_label(f"Remove {TITLES[16]}").press("Enter")
        expect(tab.locator("#history li")).to_have_count(1)
        tab.get_by_text("Paste a history").click()
        tab.locator("#pasted").fill(f"{IDS[5]}, nobody\n{IDS[6]}")
        tab.get_by_text("Take these").press("Enter")
        expect(tab.locator("#history .unknown")).to_have_text("nobody (unknown)")
        expect(tab.locator("#status")).to_contain_text("1 unknown")
        tab.locator("#example").click()
        # What persons did is nobody's who is merely on this machine.
        expect(tab.locator("#token")).to_be_focused()
        tab.locator("#token").fill(TOKEN)
        tab.locator("#token").press("Enter")
        expect(tab.locator("#example-said")).to_have_text("The data set of this model is not at hand.")


@needs_browser
def test_reasons_neighbours_and_new_items_are_shown(browser: Browser, artifacts_folder: Path) -> None:
    with served() as address, opened(browser, address) as tab:
        tab.locator("#search").fill("number 3")
        expect(tab.locator("#found li").first).to_have_attribute("aria-selected", "true")
        tab.keyboard.press("Enter")
        first = tab.locator("article[aria-labelledby=list-ranked] li").first
        first.get_by_role("button", name="why").click()
        for text in ("generation", "dense score", "nearness of text", "popularity", "this history's mean candidate"):
            expect(first.locator(".why")).to_contain_text(text)
        tab.locator("#k").fill("24")
        tab.locator("#k").press("Enter")
        expect(tab.locator("article[aria-labelledby=list-popular] .new")).to_have_count(2)
        expect(tab.locator("article[aria-labelledby=list-popular]")).to_contain_text("No more than 23 are left.")
        tab.locator("article[aria-labelledby=list-popular] .title").first.click()
        expect(tab.locator("#item h3")).to_have_text(
            ["Codes in words", "Neighbours in code space", "Neighbours in text"]
        )
        assert tab.locator("#item section").nth(1).locator("li .title").count() == 7
        assert tab.locator("#item section").nth(2).locator("li .title").count() == 10
        tab.keyboard.press("Escape")
        expect(tab.locator("#item")).to_be_hidden()


@needs_browser
def test_rules_are_tried_live(browser: Browser, artifacts_folder: Path) -> None:
    ListStore().put("in-stock", IDS[:12])
    with served() as address, opened(browser, address) as tab:
        expect(tab.locator("#only-list option")).to_have_count(2)
        tab.locator("#only-list").select_option("in-stock")
        expect(tab.locator("#status")).to_have_text("12 items may be recommended.")
        tab.locator("#add-condition").press("Enter")
        tab.get_by_label("How").select_option("gte")
        tab.get_by_label("Value").fill("4")
        tab.get_by_label("Value").press("Enter")
        expect(tab.locator("#status")).to_have_text("4 items may be recommended.")
        expect_list(tab, "popular", TITLES[8:12])
        tab.get_by_label(f"Leave {TITLES[9]} out").first.click()
        expect(tab.locator("#status")).to_have_text("3 items may be recommended.")
        tab.get_by_label(f"Allow {TITLES[9]} again").press("Enter")
        tab.get_by_label("Value").fill("cheap")
        tab.get_by_label("Value").press("Tab")
        expect(tab.locator("#status .error")).to_have_text("price: “cheap” is no number.")
        tab.get_by_label("How").select_option("any")
        for values, said in (("4; x", "price: “x” is no number."), ("4;; 4.5;", "2 items may be recommended.")):
            tab.get_by_label("Value").fill(values)
            tab.get_by_label("Value").press("Tab")
            expect(tab.locator("#status")).to_have_text(said)
        tab.get_by_label("How").select_option("gte")
        tab.get_by_label("Value").fill("400")
        tab.get_by_label("Value").press("Tab")
        expect(tab.locator("#status .error")).to_contain_text("no item of the catalogue is left")
        expect(tab.locator("#lists article")).to_have_count(0)
        tab.get_by_label("Value").fill("1,000")
        tab.get_by_label("Value").press("Tab")
        expect(tab.locator("#status .error")).to_have_text("price: write “1,000” as 1000 or 0.125.")
        tab.get_by_label("Remove the condition").click()
        expect(tab.locator("#status")).to_have_text("12 items may be recommended.")


@needs_browser
def test_a_page_that_is_opened_early_waits_for_the_model_and_one_left_open_follows_it(
    browser: Browser, artifacts_folder: Path
) -> None:
    started: list[Service] = []
    with served(started=started) as address:
        (service,) = started
        first, service.keeper.current = service.keeper.current, None
        with opened(browser, address) as tab:
            expect(tab.locator("#status .error")).to_have_text("No model is loaded yet.")
            service.keeper.current = first
            expect(tab.locator("#lists article")).to_have_count(1)
            tab.locator("#add-condition").click()
            tab.get_by_label("Value").fill("5")
            tab.get_by_label("Value").press("Tab")
            expect(tab.locator("#status")).to_have_text("1 items may be recommended.")
            # Its successor keeps another column first, and lacks two items.
            successor = tiny_recommender()
            other = Attribute.of(pl.Series("aisle", [5] * len(IDS)))
            successor.attributes.by_name = {"aisle": other, **successor.attributes.by_name}
            successor.catalogue = successor.catalogue.with_withdrawn(np.array([3, len(IDS) - 1]), True)
            service.keeper.current = Loaded(version_of(2), successor)
            tab.locator("#k").fill("5")
            tab.locator("#k").press("Tab")
            expect(tab.locator("#model")).to_have_text("prorec-shop/2: 22 items, 1 of them new")
            expect(tab.locator("#status")).to_have_text("1 items may be recommended.")


@needs_browser
def test_elsewhere_it_asks_for_the_token_and_keeps_it_in_memory(browser: Browser, artifacts_folder: Path) -> None:
    with served(homes=()) as address, opened(browser, address) as tab:
        expect(tab.locator("#token")).to_be_focused()
        tab.keyboard.type("wrong")
        tab.keyboard.press("Enter")
        expect(tab.locator("#status")).to_have_text("This is not the token.")
        tab.locator("#token").fill(TOKEN)
        tab.keyboard.press("Enter")
        expect(tab.locator("#lists article")).to_have_count(1)
        expect(tab.locator("#door")).to_be_hidden()
        kept = tab.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href]")
        assert kept == [0, 0, "", f"{address}/"] and TOKEN not in tab.content()
        tab.reload()
        expect(tab.locator("#token")).to_be_visible()
    assert GIVEN["Authorization"].endswith(TOKEN)


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_window_in_light_and_dark(browser: Browser, artifacts_folder: Path, scheme: Any) -> None:
    size = {"width": 340, "height": 700}
    with served() as address, opened(browser, address, viewport=size, color_scheme=scheme) as tab:
        tab.locator("#search").fill("number 3")
        expect(tab.locator("#found li").first).to_have_attribute("aria-selected", "true")
        tab.keyboard.press("Enter")
        expect(tab.locator("#lists article")).to_have_count(5)
        tab.locator("#add-condition").click()
        tab.get_by_role("button", name="why").first.click()
        assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        ink, paper = tab.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
        light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
        assert (light[0] < light[1]) == (scheme == "light") and abs(light[0] - light[1]) > 500
