"""The page at / in a real browser, and the routes behind it."""

from __future__ import annotations

import re
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient

import antiphon
from antiphon.model.description import describe
from antiphon.model.parity import compare, unlike_texts
from antiphon.serving.app import create_app
from antiphon.serving.server_settings import ServerSettings
from antiphon.serving.sockets import bind, url

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREENS = {"desktop": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 800, "light")}


@pytest.fixture(scope="module")
def model():
    return antiphon.build("nano")


@pytest.fixture(scope="module")
def client(model):
    with TestClient(create_app(model, ServerSettings(name="nano")), base_url="http://127.0.0.1:8000") as opened:
        yield opened


def test_the_page_needs_nothing_from_elsewhere(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", answer.text)
    assert not re.findall(r"https?://|@import|url\(", answer.text)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy


def test_the_page_is_in_the_package():
    import antiphon.serving.playground as package

    assert (Path(package.__file__).parent / "page.html").exists()


def test_about(client, model):
    about = client.get("/playground/about").json()
    assert about["name"] == "nano"
    assert about["template"] == "echo-rewrite"
    assert about["dimensions"] == model.get_embedding_dimension()
    assert {"echo", "classical-write", "eol"} <= set(about["templates"])
    assert about["remembers"]


@pytest.mark.parametrize(("template", "pooling"), [("classical-write", "mean"), ("eol", "last"), ("echo", "mean")])
def test_another_template_is_what_building_with_it_gives(client, template, pooling):
    texts = unlike_texts()[:16]
    body = {"texts": texts, "templates": ["", template], "pooling": pooling}
    own, seen = client.post("/playground/similarity", json=body).json()["maps"]
    built = antiphon.build("nano", template, pooling=pooling).encode(texts, normalize_embeddings=True)
    assert np.allclose(seen["cosines"], built @ built.T, atol=2e-2)  # bfloat16
    assert not np.allclose(seen["cosines"], own["cosines"], atol=2e-2)
    apart = np.array(seen["cosines"])[~np.eye(16, dtype=bool)]
    figures = [seen[name] for name in ("lowest", "median", "highest")]
    assert np.allclose(figures, [apart.min(), np.median(apart), apart.max()])


def test_looking_at_other_templates_leaves_the_model_as_it_is(client, model):
    texts = unlike_texts()
    before = model.encode(texts)
    client.post("/playground/similarity", json={"texts": texts[:2], "templates": ["eol", "echo"]})
    after = client.post("/v1/embeddings", json={"input": texts}).json()["data"]
    served = np.array([row["embedding"] for row in after], dtype=np.float32)
    outcome = compare(served, before, limit=5e-2)
    assert outcome.equal, str(outcome)


def test_tokens_are_those_of_show(client, model):
    shown = client.post("/playground/tokens", json={"text": "The cat sat.", "side": "document"}).json()
    described = describe(model, "The cat sat.", side="document")
    assert [(token["id"], token["text"], token["pooled"]) for token in shown["tokens"]] == [
        (token.id, token.text, token.pooled) for token in described.tokens
    ]
    assert shown["pooled"] == described.pooled > 0


def test_memory_is_that_of_reconstruct(client, model):
    from antiphon.training.reconstruct import reconstruct

    text = "Return the number of items."
    said = client.post("/playground/memory", json={"text": text, "side": "document", "max_tokens": 8}).json()
    assert said == {"text": reconstruct(model, text, side="document", max_tokens=8)}


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("similarity", {"texts": ["one"]}, "texts"),
        ("similarity", {"texts": ["a"] * 17}, "texts"),
        ("similarity", {"texts": ["a", "b"], "templates": ["nope"]}, "cannot be seen under template 'nope'"),
        ("similarity", {"texts": ["a", "b"], "templates": ["eol"] * 5}, "templates"),
        ("similarity", {"texts": ["a", "b"], "templates": ["eol"], "pooling": "max"}, "There is no pooling 'max'"),
        ("tokens", {"text": "a" * 2001}, "text"),
        ("memory", {"text": "a", "max_tokens": 65}, "max_tokens"),
        ("memory", {"text": " "}, "There is no text"),
    ],
)
def test_what_a_click_may_cost_is_bounded(client, path, body, sentence):
    answer = client.post(f"/playground/{path}", json=body)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]


def test_a_model_whose_template_lives_in_its_tokenizer_is_seen_as_it_is(tiny_base):
    baked = antiphon.build(tiny_base, pooling="last", max_tokens=64)
    with TestClient(create_app(baked, ServerSettings(name="baked")), base_url="http://127.0.0.1:8000") as client:
        assert client.get("/playground/about").json()["templates"] == []
        body = {"texts": ["a", "b"], "templates": ["eol"]}
        assert client.post("/playground/similarity", json=body).status_code == 400
        assert client.post("/playground/similarity", json={"texts": ["a", "b"]}).status_code == 200


@contextmanager
def running(model, **options):
    """The application on a socket of this process, and its address."""
    with bind("127.0.0.1", 0) as listener:
        app = create_app(model, ServerSettings(name="nano", **options))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield url(listener)
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Open the page; whatever it logs as an error, throws, or asks of another host fails the test."""
    pages, wrong = [], []

    def open_page(address, screen="desktop"):
        width, height, scheme = SCREENS[screen]
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if "Refused" in message.text else None)
        page.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else wrong.append(asked.url))
        page.goto(address)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not wrong, wrong


@pytest.mark.slow
def test_every_panel_works_on_every_screen(model, visit, tmp_path):
    with running(model) as address:
        for screen, (width, _, _) in SCREENS.items():
            page = visit(address, screen)
            page.wait_for_selector("body[data-ready]")
            assert page.locator("#maps figure").count() == 3
            assert page.locator("#maps table").first.locator("tbody tr").count() == 6
            assert "break" in page.locator("#search-query").input_value()
            assert page.locator("#hits li").first.inner_text().find("Wrap a single paragraph") > 0
            pooled = "".join(page.locator("#token-list .pooled").all_inner_texts())
            assert "cat" in pooled
            assert "Rewrite" not in pooled
            page.click("#memory button")
            page.wait_for_selector("#remembered:not(:empty)")
            # nothing sticks out at the side
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert (
                page.evaluate("[...document.querySelectorAll('.error')].map(node => node.textContent).join('')") == ""
            )
            picture = tmp_path / f"{screen}.png"
            page.screenshot(path=picture, full_page=True)
            assert len(set(picture.read_bytes())) > 200


@pytest.mark.slow
def test_the_keyboard_is_enough(model, visit):
    with running(model) as address:
        page = visit(address)
        page.wait_for_selector("body[data-ready]")
        # every control comes under Tab, in the order of the page, and shows that it has the focus
        wanted = page.evaluate(
            "[...document.querySelectorAll('main button, main input, main textarea, main select')]"
            ".filter(node => node.offsetParent && !node.disabled).length"
        )
        reached = 0
        for _ in range(wanted):
            page.keyboard.press("Tab")
            style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            reached += page.evaluate("document.activeElement.closest('main') !== null") and style != "none"
        assert reached == wanted
        page.focus("#tokens-text")
        page.keyboard.press("Control+A")
        page.keyboard.type("Zebras run")
        page.keyboard.press("Enter")
        page.wait_for_selector("#token-list :text('un')")
        page.focus("#compare-texts")
        page.keyboard.press("Control+A")
        page.keyboard.type("one\ntwo\nthree")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#compared li:nth-child(3):last-child")
        # each control has a name for a screen reader
        nameless = page.evaluate(
            "[...document.querySelectorAll('input, textarea, select')].filter(node => !node.labels.length).length"
        )
        assert nameless == 0


@pytest.mark.slow
def test_errors_are_shown_where_they_arose_and_text_stays_text(model, visit):
    with running(model) as address:
        page = visit(address)
        page.wait_for_selector("body[data-ready]")
        page.fill("#compare-texts", "alone")
        page.click("#compare button")
        page.wait_for_selector("#compare .error:not(:empty)")
        assert "Two texts at least" in page.inner_text("#compare .error")
        page.fill("#search-texts", "<img src=x onerror=alert(1)>\n<b>bold</b>")
        page.click("#search button")
        page.wait_for_selector("#hits li:nth-child(2):last-child")
        assert page.locator("#hits img, #hits li b b").count() == 0
        page.fill("#tokens-text", "x" * 2001)
        page.click("#tokens button")
        page.wait_for_selector("#tokens .error:not(:empty)")


@pytest.mark.slow
def test_a_key_is_asked_for_and_used(model, visit):
    with running(model, api_key="right") as address:
        page = visit(address)
        page.wait_for_selector("#key-form:not([hidden])")
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-error:not(:empty)")
        page.fill("#key", "right")
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-ready]")
        assert page.locator("#maps figure").count() == 3


@pytest.mark.slow
def test_who_waits_is_told(model, visit):
    with running(model) as address:
        page = visit(address)
        page.wait_for_selector("body[data-ready]")
        # the page's own fetch waits, and nothing is held in the browser
        page.add_init_script(
            "const real = window.fetch; window.go = {};"
            "window.fetch = (path, options) => new Promise((done) => { window.go[path] = done; })"
            ".then(() => real(path, options));"
        )
        page.reload()
        page.wait_for_selector("#loading:not([hidden])")
        assert not page.is_visible("#main")  # nothing to press before the server has said what it serves
        page.evaluate("window.go['playground/about']()")
        page.wait_for_selector("#search .working:not(:empty)")
        assert not page.is_visible("#loading")
        assert page.is_disabled("#search button")
        page.evaluate("Object.values(window.go).forEach((go) => go())")
        page.wait_for_selector("body[data-ready]")
        assert page.locator(".working:not(:empty)").count() == 0
