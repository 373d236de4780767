"""The page in a headless browser. `DRIFT_EDGE_SCREENSHOTS=FOLDER` keeps pictures of a person's whole path."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drift_edge import Drift, Profile
from drift_edge.errors import ContextOverflowError
from drift_edge.server import Access, Defaults
from tests.cli.fake import FakeEngine
from tests.server.scripted import Running, StepEngine, running, until

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not there")
from playwright.sync_api import Browser, Locator, Page, expect  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is there"), pytest.mark.timeout(300)]

PATIENCE = 40_000  # milliseconds: machines that run tests are busy
Opener = Callable[..., Page]


class WordEngine(StepEngine):
    """Answers at once, with how it was steered."""

    _events = FakeEngine._events  # type: ignore[assignment]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        expect.set_options(timeout=PATIENCE)
        yield started
        started.close()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles of this test alone."""
    monkeypatch.setenv("DRIFT_EDGE_HOME", str(tmp_path / "home"))


@pytest.fixture
def visit(browser: Browser) -> Iterator[Opener]:
    """Opens the page; at the end, nothing was asked of elsewhere, and no script had failed."""
    contexts, wrong = [], []

    def open_page(server: Running, *, size: tuple[int, int] = (1000, 620)) -> Page:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        origin = f"http://127.0.0.1:{server.port}/"
        page.on("pageerror", lambda error: wrong.append(str(error)))
        # A refusal of the server's is logged too; each test looks for its own.
        page.on("console", lambda line: "server responded" in line.text or wrong.append(line.text))
        page.on("request", lambda asked: asked.url.startswith(origin) or wrong.append(asked.url))
        page.goto(origin)
        page.locator("#counts:not(:empty), #key[open]").first.wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[WordEngine, Running]]:
    """A server whose engine answers at once."""
    engine = WordEngine()
    with running(engine, Defaults(seed=3)) as server:
        yield engine, server


@pytest.fixture
def words(shared: tuple[WordEngine, Running]) -> tuple[WordEngine, Running]:
    """The same, the engine as new."""
    shared[0].reset()
    return shared


def ask(page: Page, text: str, mode: str = "One answer") -> None:
    """Ask as a person would."""
    page.get_by_text(mode, exact=True).click()
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")


def press(page: Page, name: str) -> None:
    """Press a button of the last turn."""
    page.locator(".turn").last.get_by_role("button", name=name).click()


def answer(page: Page) -> Locator:
    """Text of the last answer."""
    return page.locator(".turn").last.locator(".text")


def test_from_the_first_question_to_a_changed_profile(builtin_files: tuple[Path, Path], visit: Opener) -> None:
    pictures = os.environ.get("DRIFT_EDGE_SCREENSHOTS")

    def keep(page: Page, name: str) -> None:
        if pictures:
            page.wait_for_timeout(600)  # bars move
            page.screenshot(path=Path(pictures) / f"{name}.png")

    with Drift.load(*builtin_files) as engine, running(engine, Defaults(seed=12), model="nano") as server:
        page = visit(server, size=(1000, 720))
        expect(page.locator("#counts")).to_contain_text("Nothing learned yet")
        expect(page.locator("#bars li")).to_have_count(0)

        ask(page, "How do you make tea?", "Two to choose")
        choose = page.get_by_role("button", name="Choose Second answer")
        expect(choose).to_be_enabled()
        first, second = page.locator(".pair .text").all_inner_texts()
        assert first != second
        choose.click()
        expect(page.locator(".note")).to_contain_text("Learned.")
        expect(answer(page)).to_have_text(second)

        profile = Profile.open()
        (choice,) = profile.choices()
        assert (choice.pair.chosen, choice.pair.rejected) == (second, first)
        told = server.ask("GET", "/v1/drift/profile")[1]["weights"]
        active = sorted((name for name in told if told[name]["active"]), key=lambda name: -abs(told[name]["weight"]))
        assert active
        assert page.locator("#bars .name").all_inner_texts() == active
        values = [float(text.replace("\u2212", "-")) for text in page.locator("#bars .value").all_inner_texts()]
        assert values == pytest.approx([told[name]["weight"] for name in active], abs=0.0051)

        ask(page, "How do I make pancakes?", "Two to choose")
        expect(choose).to_be_enabled()
        keep(page, "page-choice")

        ask(page, "How do I cook rice?")
        press(page, "Why these words")
        expect(page.locator(".turn").last.locator(".legend")).to_contain_text("pushed")
        page.locator(".turn").last.locator(".text .tint").first.wait_for()
        why = page.locator(".turn").last.get_by_role("button", name="Why these words")
        expect(why).to_have_attribute("aria-pressed", "true")
        expect(why).to_be_in_viewport(ratio=1)
        keep(page, "page-why")

        page.get_by_text("Choices", exact=True).click()
        page.get_by_role("button", name="Forget the choice on: How do you make tea?").click()
        expect(page.locator("#counts")).to_contain_text("Nothing learned yet")
        assert Profile.open().n == 0


def test_words_come_one_by_one_and_escape_stops_them(visit: Opener) -> None:
    step = StepEngine()
    with running(step) as server:
        page = visit(server)
        ask(page, "Count")
        step.let(2)
        expect(answer(page)).to_have_text("1 2 ")
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        page.get_by_label("Your question").fill("not yet")
        page.keyboard.press("Enter")  # one answer at a time
        page.keyboard.press("Escape")
        until(lambda: step.ended == ["Count"])
        expect(page.locator(".note")).to_have_text("Stopped.")
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        expect(page.get_by_label("Your question")).to_have_value("not yet")
        assert step.drawn == ["Count"] * 2

        page.keyboard.press("Enter")
        step.let(1)
        expect(answer(page)).to_have_text("1 ")
        assert [message["content"] for message in step.calls[-1]["messages"]] == ["Count", "1 2 ", "not yet"]
        page.get_by_role("button", name="New chat").click()
        until(lambda: step.ended == ["Count", "not yet"])
        expect(page.locator(".turn")).to_have_count(0)
        assert page.evaluate("sessionStorage.getItem('messages')") == "[]"


def test_another_answer_and_an_edit_are_choices(words: tuple[WordEngine, Running], visit: Opener) -> None:
    _, server = words
    page = visit(server)
    ask(page, "Hello concise")
    expect(answer(page)).to_have_text("You said: Hello concise [plain, seed 3, attempt 0]")
    press(page, "Try again")
    expect(page.locator(".pair .text").nth(1)).to_have_text("You said: Hello concise [plain, seed 3, attempt 1]")
    press(page, "Choose Again")
    expect(page.locator(".note")).to_have_text("Learned. No weight moved.")
    press(page, "Edit")
    page.get_by_label("Edit the answer").fill("concise concise")
    press(page, "Save")
    expect(answer(page)).to_have_text("concise concise")
    expect(page.locator(".note")).to_contain_text("concise +0.00 → +1.00")
    press(page, "Try again")
    expect(page.get_by_role("button", name="Neither is better")).to_be_enabled()
    press(page, "Neither is better")
    expect(page.locator(".note")).to_have_text("Noted: neither was better.")
    expect(answer(page)).to_have_text("concise concise")

    again, edited, tie = Profile.open().choices()
    assert ("attempt 1" in again.pair.chosen, "attempt 0" in again.pair.rejected) == (True, True)
    assert (edited.pair.chosen, edited.pair.rejected) == ("concise concise", again.pair.chosen)
    assert (tie.pair.tie, tie.pair.chosen) == (True, "concise concise")
    assert [choice.pair.source for choice in (again, edited, tie)] == ["page /regen", "page edit", "page /regen"]


def test_mine_and_pure_have_the_same_noise(words: tuple[WordEngine, Running], visit: Opener) -> None:
    engine, server = words
    server.ask("PATCH", "/v1/drift/profile", {"weights": {"formal": 1.0}})
    page = visit(server)
    ask(page, "Hello", "Mine and pure")
    expect(page.get_by_role("button", name="Choose Mine")).to_be_enabled()
    mine, pure = page.locator(".pair .text").all_inner_texts()
    assert ("[formal=1, seed" in mine, "[plain, seed" in pure) == (True, True)
    assert engine.calls[0]["seed"] == engine.calls[1]["seed"]
    ask(page, "And then?")  # going on without a choice keeps one's own
    expect(answer(page)).to_contain_text("And then?")
    assert engine.calls[-1]["messages"][1]["content"] == mine
    assert list(Profile.open().choices()) == []
    press(page, "Why these words")
    expect(answer(page).locator(".tint")).to_have_text("[formal=1, ")
    expect(page.locator(".turn").last.locator(".legend")).to_contain_text("formal 1")
    press(page, "Why these words")
    expect(answer(page).locator(".tint")).to_have_count(0)


def test_the_profile_is_set_by_hand(words: tuple[WordEngine, Running], visit: Opener) -> None:
    _, server = words
    page = visit(server)
    page.get_by_text("Other attributes").click()
    page.get_by_role("button", name="Pin humor").click()
    expect(page.locator("#bars .name")).to_have_text(["humor"])
    expect(page.get_by_role("button", name="Pin humor")).to_be_focused()
    page.get_by_role("button", name="Block formal").click()
    expect(page.get_by_role("button", name="Block formal")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Block sycophant").click()
    expect(page.get_by_role("button", name="Block sycophant")).to_have_attribute("aria-pressed", "false")
    settings = Profile.open().settings
    assert (settings.pinned, settings.blocked) == (("humor",), ("conspiracy", "formal"))

    page.get_by_label("Whose profile steers").select_option("nobody's")
    expect(page.get_by_label("Two to choose")).to_be_disabled()
    expect(page.locator("#bars")).to_be_hidden()


def test_how_strongly_to_steer(words: tuple[WordEngine, Running], visit: Opener) -> None:
    engine, server = words
    server.ask("PATCH", "/v1/drift/profile", {"weights": {"formal": 1.0}, "settings": {"beta": 0.4}})
    page = visit(server)
    strength, told = page.get_by_label("Strength", exact=True), page.locator("#strength-told")
    expect(told).to_have_text("beta 0.4")
    ask(page, "one")
    expect(answer(page)).to_contain_text("one")
    strength.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(told).to_have_text("0.95")
    page.reload()
    expect(told).to_have_text("0.95")
    ask(page, "two")
    expect(answer(page)).to_contain_text("two")
    page.get_by_role("button", name="Back to the profile's own strength").click()
    ask(page, "three")
    expect(answer(page)).to_contain_text("three")
    assert [(call["beta"], call["strength"]) for call in engine.calls] == [(0.4, None), (None, 0.95), (0.4, None)]
    server.ask("PATCH", "/v1/drift/profile", {"settings": {"strength": 0.3}})
    page.reload()
    expect(told).to_have_text("0.30")
    expect(strength).to_have_value("0.3")


def test_by_keyboard_alone(words: tuple[WordEngine, Running], visit: Opener) -> None:
    _, server = words
    page = visit(server)
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    expect(page.locator(".question")).to_have_text("one\ntwo", use_inner_text=True)
    expect(page.locator("#status")).to_contain_text("You said: one\ntwo")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Two to choose")).to_be_checked()
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Edit")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_text_is_never_markup_and_outlives_a_reload(words: tuple[WordEngine, Running], visit: Opener) -> None:
    _, server = words
    page = visit(server)
    text = "<img src=x onerror=alert(1)> & \"'</p>"
    ask(page, text)
    expect(page.get_by_role("button", name="Edit")).to_be_visible()
    page.reload()
    expect(page.locator(".question")).to_have_text(text)
    expect(answer(page)).to_contain_text(f"You said: {text}")
    assert page.locator("#turns img").count() == 0
    ask(page, "next")
    expect(page.locator(".turn")).to_have_count(2)


def test_the_key_is_asked_for_once(visit: Opener) -> None:
    with running(WordEngine(), access=Access(api_key="sesame")) as server:
        page = visit(server)
        page.get_by_label("This server wants its API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_label("This server wants its API key")).to_have_value("")
        page.get_by_label("This server wants its API key").fill("sesame")
        page.keyboard.press("Enter")
        expect(page.locator("#counts")).to_contain_text("Nothing learned yet")
        expect(page.locator("#key")).to_be_hidden()
        page.reload()
        expect(page.locator("#model")).to_have_text("step")
        ask(page, "Hello")
        expect(answer(page)).to_contain_text("You said: Hello")


def test_what_fails_is_told_and_can_be_asked_again(words: tuple[WordEngine, Running], visit: Opener) -> None:
    engine, server = words
    page = visit(server)
    engine.error = ContextOverflowError("the conversation needs 900 tokens, the context holds 512")
    ask(page, "Hello")
    expect(page.get_by_role("alert")).to_contain_text("needs 900 tokens")
    engine.error = None
    press(page, "Ask again")
    expect(answer(page)).to_contain_text("You said: Hello")
    assert len(engine.calls[-1]["messages"]) == 1


def test_light_dark_and_narrow(words: tuple[WordEngine, Running], visit: Opener) -> None:
    _, server = words
    page = visit(server, size=(390, 700))

    def is_dark() -> bool:
        colours = page.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(",")
        return sum(map(int, colours)) < 3 * 128

    assert not is_dark()
    page.emulate_media(color_scheme="dark")
    assert is_dark()
    page.get_by_role("button", name="Light").click()
    page.reload()
    assert not is_dark()
    expect(page.get_by_role("button", name="Dark")).to_be_visible()

    ask(page, "word " * 30 + "x" * 200, "Two to choose")
    expect(page.get_by_role("button", name="Choose First answer")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.querySelector('#log').scrollWidth <= document.querySelector('#log').clientWidth")
    expect(page.locator("#profile")).to_be_hidden()
    page.get_by_role("button", name="Profile").click()
    expect(page.get_by_label("Strength", exact=True)).to_be_visible()
    expect(page.get_by_label("Your question")).to_be_hidden()
