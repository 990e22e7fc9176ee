"""The console in a real browser, against a live daemon with a simulated broker (P11, P12, P2)."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe

from tests.console.conftest import BROKEN, HOSTILE, Console, Window
from tests.end_to_end.user import eventually

PAGES = {
    "/": ("Trading is", "rate budget", "this process", "Newest decisions"),
    "/console/decisions": ("submitted", "denied", "rejected"),
    "/console/orders": ("Open", "(external)", "Recent"),
    "/console/plans": ("Plans and sagas", "the books", "completed"),
    "/console/plans/1": ("carried out", "buy SPY", "succeeded", "Steps", "finish"),
    "/console/sagas/1": ("every step is done", "prepare", "its plan"),
    "/console/positions": ("AAPL", "broker's", "none"),
    "/console/fills": ("AAPL", "buy"),
    "/console/pnl": ("By strategy", "By symbol", "CSV"),
    "/console/risk": ("How much is used", "max_order_notional", "default"),
    "/console/attention": ("Discrepancies", "Orders of others", "Compare the fields"),
    "/console/strategies": ("No strategy runs here",),
    "/console/audit": ("account taken over",),
}
STAGES = {
    "Identity": "the hash matches: yes",
    "Verdict": "max_order_notional",
    "Attempts and answers": "accepted",
    "Order at the broker": "filled",
    "Fills": "buy 10 AAPL",
    "Timeline": "closed, its order has ended",
}


def violations(window: Window) -> list[str]:
    """Serious findings of axe on the page that is open."""
    found = Axe().run(window.page).response["violations"]
    return [
        f"{item['id']}: {item['help']}: {item['nodes'][0]['html'][:200]}"
        for item in found
        if item["impact"] in ("serious", "critical")
    ]


def test_every_page_has_life_and_is_accessible(window: Window, console: Console) -> None:
    """Each page shows what is there, without an error, a foreign request or a barrier."""
    for path, texts in PAGES.items():
        window.see(path)
        for text in texts:
            assert text in window.text, (path, text, window.text)
        assert violations(window) == [], path
    window.see(f"/console/decisions/{console.hashes['filled']}")
    assert violations(window) == []
    window.page.emulate_media(color_scheme="dark")
    window.page.set_viewport_size({"width": 380, "height": 700})
    for path in ("/", "/console/attention"):
        window.see(path)
        assert violations(window) == [], f"{path} in the dark"
        wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert window.page.evaluate(wider) is False, f"{path} is wider than a phone"


def test_control_axe_finds_a_barrier(window: Window) -> None:
    """Control: a field without a name is found."""
    window.see("/console/risk")
    window.page.evaluate("document.querySelector('main').innerHTML = '<input>'")
    assert violations(window)


def test_the_decision_page_shows_every_stage(window: Window, console: Console) -> None:
    """P2: from identity to the fill, with bars, in the order of time."""
    window.see(f"/console/decisions/{console.hashes['filled']}")
    shown = {
        section.inner_text().splitlines()[0]: section.inner_text()
        for section in window.page.query_selector_all("section.stage")
    }
    assert list(shown) == list(STAGES)
    for title, text in STAGES.items():
        assert text in shown[title], title
    stages = [e.inner_text() for e in window.page.query_selector_all(".timeline .stage-name")]
    assert stages[0] == "identity"
    assert {"verdict", "attempt", "answer", "order", "fill", "event"} <= set(stages)
    assert window.page.query_selector_all("svg.bar .value")


def test_texts_are_shown_and_not_run(window: Window, console: Console) -> None:
    """Names, reasons and the broker's words that are markup are shown as text, wherever."""
    decisions = [f"/console/decisions/{console.hashes[name]}" for name in ("filled", "refused")]
    for path in (*PAGES, *decisions):
        window.see(path)
        assert window.page.evaluate("window.hit") is None, path
        assert window.page.query_selector("main script, main img") is None, path
    assert HOSTILE in window.text  # the broker's refusal
    window.see("/console/attention")
    assert HOSTILE in window.text and BROKEN in window.text
    window.see(f"/console/decisions?strategy={HOSTILE}")
    assert window.page.input_value("input[name=strategy]") == HOSTILE
    assert HOSTILE in window.text


def test_a_halt_from_the_overview_stops_the_next_order(window: Window, console: Console) -> None:
    """P11. Control: the same decision a moment before the halt is sent."""
    console.submit("before the halt", qty="1")
    console.reaches("before the halt", "submitted", "closed")
    window.see("/")
    window.page.get_by_role("button", name="Halt").click()
    window.page.get_by_text("Trading is halted").wait_for()
    assert "global: active → halted" in window.text
    sent = console.user.posts()
    console.submit("after the halt", qty="2")
    console.reaches("after the halt", "denied")
    assert console.user.posts() == sent
    actor, reason = console.user.sql(
        "SELECT actor, reason FROM trading_states WHERE scope = 'global'"
    )[0]
    assert (actor, reason) == ("console:local", "halted from the console, to look")
    window.page.get_by_label("Reason to resume").fill(f"looked {HOSTILE}")
    window.page.get_by_role("button", name="Resume").click()
    window.page.get_by_text("Trading is active").wait_for()
    window.see("/console/audit")
    assert "active → halted" in window.text and f"looked {HOSTILE}" in window.text
    console.submit("after the resume", qty="3")
    console.reaches("after the resume", "submitted", "closed")


def test_what_stands_in_attention_can_be_settled(window: Window, console: Console) -> None:
    """P12: a discrepancy is resolved with a typed reason; an order of others is canceled."""
    window.see("/console/attention")
    card = window.page.locator("article", has_text="to-be-resolved")
    card.get_by_role("button", name="Resolve").click()  # no reason: the browser does not send it
    assert "to-be-resolved" in window.text
    card.get_by_placeholder("why?").fill("looked at the broker, it moved")
    card.get_by_role("button", name="Resolve").click()
    window.page.get_by_text("order_differs to-be-resolved, is closed").wait_for()
    resolution = console.user.sql(
        "SELECT resolution FROM discrepancies WHERE subject = 'to-be-resolved'"
    )[0][0]
    assert resolution == "resolved by console:local: looked at the broker, it moved"
    card = window.page.locator("article", has_text="limit 1")
    card.get_by_placeholder("why?").fill("not ours")
    card.get_by_role("button", name="Cancel").click()
    window.page.get_by_text("cancel asked for").wait_for()
    ended = "SELECT 1 FROM executions WHERE origin = 'external' AND status = 'canceled'"
    eventually(lambda: console.user.sql(ended))


def test_a_doubt_is_settled_from_attention(window: Window, console: Console) -> None:
    """P4: what is in doubt shows its advice; asked for there, its order stands no more."""
    console.doubt("doubtful", symbol="GOOG", type="limit", limit_price="1", time_in_force="gtc")
    window.see("/console/attention")
    card = window.page.locator("article", has_text=console.hashes["doubtful"][:12]).first
    assert "Nothing for you to do while the questions go on" in card.inner_text()
    card.get_by_placeholder("why?").fill("not wanted any more")
    card.get_by_role("button", name="Cancel").click()
    window.page.get_by_text("cancel asked for").wait_for()
    console.healed()
    console.reaches("doubtful", "canceled", "closed")  # called off, or sent again and canceled
    standing = "SELECT 1 FROM executions WHERE symbol = 'GOOG' AND (NOT terminal OR cum_qty > 0)"
    assert console.user.sql(standing) == []


def test_without_javascript_one_reads_and_acts(plain_window: Window, console: Console) -> None:
    """Pages, filters and forms are plain HTML."""
    window = plain_window
    window.see("/console/decisions")
    window.page.get_by_label("status").select_option("denied")
    window.page.get_by_role("button", name="Show").click()
    window.page.wait_for_url("**/console/decisions?*status=denied*")
    window.page.get_by_role("cell", name="denied", exact=True).first.wait_for()
    assert "submitted" not in window.page.locator("tbody").inner_text()
    window.see("/console/orders")
    row = window.page.locator("#open tr", has_text="IBM")
    row.locator("summary").click()
    row.get_by_placeholder("why?").fill("without a script")
    row.get_by_role("button", name="Cancel").click()
    window.page.get_by_text("cancel asked for").wait_for()
    console.reaches("also open", "closed")


def test_an_open_page_follows_what_happens(window: Window, console: Console) -> None:
    """A new decision appears by itself, and the page was not loaded again."""
    window.see("/")
    window.page.evaluate("window.same = true")
    new = console.submit("while you look", qty="4")
    window.page.locator(f"#newest a[title='{new}']").wait_for()
    assert window.page.evaluate("window.same") is True
    assert "live" in window.page.inner_text("#live-state")
