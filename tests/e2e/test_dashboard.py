"""The dashboard in a real browser: sign in, see a fill arrive, add a symbol, halt; by keyboard alone, and on a phone."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tests.support.alpacli import Alpacli
from tests.support.gateway import Gateway
from tests.support.sim_server import SimServer
from tests.support.streaming import user_of

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
QUIET = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Alpacli]:
    with SimServer(tmp_path / "exchange") as exchange:
        yield user_of(exchange.ws, tmp_path)


@pytest.fixture
def gateway(user: Alpacli, tmp_path: Path) -> Iterator[Gateway]:
    with Gateway("", tmp_path, user=user) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--window-size=1280,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """A window of its own for each test; what one gateway has kept in the browser, another one's address cannot read."""
    chromium.switch_to.new_window("window")
    chromium.get_log("browser")  # it is told once: what is there now is of the test before
    yield chromium
    chromium.close()
    chromium.switch_to.window(chromium.window_handles[0])


def _token(user: Alpacli, scope: str = "read,stream,trade") -> str:
    minted = user("serve", "token", "--scope", scope, "--quiet")
    assert minted.code == 0, minted.errors
    return minted.text.strip()


def _until(holds: Callable[[], bool], browser: Any) -> None:
    give_up_at = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up_at, browser.page_source
        time.sleep(0.1)


def _shown(browser: Any, name: str) -> str:
    text: str = browser.find_element("id", name).text
    return text


def test_a_person_signs_in_sees_a_fill_adds_a_symbol_and_halts_by_keyboard(
    user: Alpacli, gateway: Gateway, browser: Any
) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{gateway.url}/")
    _until(lambda: browser.switch_to.active_element.get_attribute("id") == "token", browser)  # once it is drawn
    browser.switch_to.active_element.send_keys("nonsense" + Keys.ENTER)
    _until(lambda: "not valid" in _shown(browser, "said"), browser)
    browser.switch_to.active_element.send_keys(_token(user) + Keys.ENTER)
    _until(lambda: _shown(browser, "connection") == "live", browser)
    assert "$100,000.00" in _shown(browser, "account")

    bought = user("buy", "AAPL", "3", "--json")
    assert bought.code == 0, bought.errors
    _until(lambda: "AAPL buy fill 3 at" in _shown(browser, "events"), browser)
    _until(lambda: "AAPL" in _shown(browser, "positions") and "filled" in _shown(browser, "orders"), browser)

    browser.find_element("id", "symbol").send_keys("nvda" + Keys.ENTER)
    _until(
        lambda: any(row.startswith("NVDA ") and "×" in row[5:-2] for row in _shown(browser, "ticks").splitlines()),
        browser,
    )
    _until(lambda: "trade" not in _shown(browser, "problem"), browser)

    browser.find_element("id", "halt").send_keys(Keys.ENTER)
    browser.find_element("id", "reason").send_keys("lunch")
    browser.find_element("id", "confirm-yes").send_keys(Keys.ENTER)
    _until(lambda: _shown(browser, "halted") == "Trading is halted: lunch", browser)
    refused = user("buy", "AAPL", "1")
    assert refused.code == 4
    assert "lunch" in refused.errors
    browser.find_element("id", "halt").send_keys(Keys.ENTER)
    browser.find_element("id", "confirm-yes").send_keys(Keys.ENTER)
    _until(lambda: not browser.find_element("id", "halted").is_displayed(), browser)
    assert user("buy", "AAPL", "1").code == 0

    wrong = [line["message"] for line in browser.get_log("browser") if "401" not in line["message"]]
    assert wrong == []  # a policy that was broken or a script that failed would be here


def test_the_page_fits_a_phone_and_names_everything_for_a_screen_reader(
    user: Alpacli, gateway: Gateway, browser: Any
) -> None:
    phone = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get(f"{gateway.url}/")
    browser.find_element("id", "token").send_keys(_token(user) + "\n")
    _until(lambda: _shown(browser, "ticks").count(".") > 4, browser)
    wide = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    unnamed = browser.execute_script(
        """
        const named = (one) => one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim();
        return [...document.querySelectorAll("button, input, meter, [role=img], [role=region]")]
          .filter((one) => !named(one) && !one.getAttribute("aria-labelledby")).map((one) => one.outerHTML);
        """
    )
    assert unnamed == []


def test_a_token_that_only_reads_cannot_halt(user: Alpacli, gateway: Gateway, browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{gateway.url}/")
    browser.find_element("id", "token").send_keys(_token(user, "read,stream") + Keys.ENTER)
    _until(lambda: _shown(browser, "connection") == "live", browser)
    browser.find_element("id", "halt").send_keys(Keys.ENTER)
    browser.find_element("id", "confirm-yes").send_keys(Keys.ENTER)
    _until(lambda: "may not trade" in _shown(browser, "problem"), browser)
    assert not browser.find_element("id", "halted").is_displayed()


# ------------------------------------------------------------------------------------------- without a browser


def test_the_empty_shell_is_open_and_strict_and_asks_no_other_host(gateway: Gateway) -> None:
    for path in ("/", "/panel.js", "/panel.css", "/panel.svg"):
        with urlopen(gateway.url + path) as answer:
            policy = answer.headers["content-security-policy"]
            body = answer.read().decode()
        assert "unsafe" not in policy
        assert policy.startswith("default-src 'none'")
        assert "http" not in body.replace("http://www.w3.org", "").replace("https:", "").replace("http-equiv", "")


def test_metrics_need_a_token_and_count_what_happened(user: Alpacli, gateway: Gateway) -> None:
    token = _token(user, "read")

    def get(path: str) -> str:
        with urlopen(Request(gateway.url + path, headers={"Authorization": f"Bearer {token}"})) as answer:
            text: str = answer.read().decode()
        return text

    with pytest.raises(HTTPError, match="401") as refused:
        urlopen(f"{gateway.url}/metrics")
    refused.value.close()
    get("/api/v1/broker/account")
    get("/api/v1/broker/account?use_cache=false")
    lines = dict(line.rsplit(" ", 1) for line in get("/metrics").splitlines() if not line.startswith("#"))
    assert float(lines['alpacli_http_requests_total{method="GET",status="200"}']) == 2
    assert float(lines['alpacli_http_requests_total{method="GET",status="401"}']) == 1
    assert float(lines['alpacli_upstream_seconds_count{host="trading",method="GET",status="200"}']) == 2
    assert float(lines['alpacli_breaker{host="trading",state="closed"}']) == 1
    assert float(lines['alpacli_breaker{host="data",state="open"}']) == 0
    assert float(lines["alpacli_budget_used"]) >= 2
    assert float(lines["alpacli_halted"]) == 0
    assert float(lines["alpacli_tasks"]) > 0
    used = set(lines)
    for name in _names_in_deploy():
        assert any(known.startswith(name) for known in used | _SOMETIMES), name


_SOMETIMES = {
    "alpacli_feed_live",
    "alpacli_feed_messages_total",
    "alpacli_feed_reconnects_total",
    "alpacli_feed_gaps_total",
    "alpacli_feed_clients",
    "alpacli_webhook_waiting",
    "alpacli_webhook_failing",
    "alpacli_webhook_deliveries_total",
}
"""Only there when a feed or a webhook is."""


def _names_in_deploy() -> set[str]:
    import re

    deploy = Path(__file__).parents[2] / "deploy"
    text = "".join((deploy / name).read_text(encoding="utf-8") for name in ("grafana-dashboard.json", "alerts.yml"))
    return set(re.findall(r"\balpacli_[a-z_]+", text))


def test_the_log_is_json_and_holds_no_secret(user: Alpacli, tmp_path: Path) -> None:
    token = _token(user, "read")
    with Gateway("", tmp_path, user=user, more=("--log-format", "json")) as gateway:
        request = Request(f"{gateway.url}/api/v1/broker/account", headers={"Authorization": f"Bearer {token}"})
        with urlopen(request) as answer:
            assert answer.status == 200
        with pytest.raises(HTTPError, match="400") as refused:
            urlopen(f"{gateway.url}/api/v1/broker/account?token={token}")
        refused.value.close()
    lines = [json.loads(line) for line in gateway.errors.splitlines()]
    asked = [(line["method"], line["path"], line["status"]) for line in lines if line["logger"] == "alpacli.requests"]
    assert asked == [("GET", "/api/v1/broker/account", 200), ("GET", "/api/v1/broker/account", 400)]
    assert lines[0]["client"].startswith("client ")
    assert token not in gateway.errors
