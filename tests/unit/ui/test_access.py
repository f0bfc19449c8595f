"""Who may open which page, and which form is believed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack

import pytest

from tieline.http.passwords import hash_password
from tieline.http.users import Account, Role, User
from tieline.ui import app
from tieline.ui.sign_in import safe_target

CSP = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}


@pytest.fixture
def guarded(serve, users_file):
    return serve(listeners_users_file=str(users_file))


def audit_lines(served):
    path = served.data_dir / "audit-pages.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_without_users_the_local_user_is_the_operator(serve):
    page = serve().browser().get("/")
    assert page.status == 200
    assert ">operator</span>" in page.html
    assert "Sign out" not in page.html


def test_without_users_another_sites_name_for_this_address_is_refused(serve):
    served = serve()
    invalid = (
        "127.0.0.1@evil.example",
        "evil.example#.localhost",
        "evil/.localhost",
        "[",
        "a b",
        "localhost:",
    )
    for host in ("evil.example", "127.0.0.1.evil.example:8083", *invalid):
        assert served.browser().get("/", {"Host": host}).status == 421
    for host in ("localhost", "127.0.0.1:1", "[::1]:8083", "tieline.localhost"):
        assert served.browser().get("/", {"Host": host}).status == 200


def test_every_answer_forbids_foreign_code(serve):
    browser = serve().browser()
    for path in ("/", "/alarms", "/nothing-here", "/static/tieline/page.js", "/session"):
        headers = browser.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert CSP.items() <= policy.items()
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_pages_are_not_cached_and_assets_are(serve):
    browser = serve().browser()
    assert browser.get("/").headers["cache-control"] == "no-store"
    assert "immutable" in browser.get("/static/tieline/page.css").headers["cache-control"]


@pytest.mark.parametrize(
    "path", ["/static/tieline/../app.py", "/static/tieline/%2e%2e/app.py", "/static/nope/x"]
)
def test_no_file_outside_the_assets_is_served(serve, path):
    assert serve().browser().get(path).status == 404


def test_with_users_every_page_asks_to_sign_in_and_returns_to_it(guarded):
    browser = guarded.browser()
    page = browser.get("/alarms?x=1")
    assert page.url.endswith("/ui/sign-in?" + urllib.parse.urlencode({"to": "/ui/alarms?x=1"}))
    assert browser.get("/session").status == 401
    assert browser.get("/events?channel=alarms").status == 401
    page = browser.sign_in("otto")
    assert (page.status, page.url.endswith("/ui/alarms")) == (200, True)
    assert browser.get("/session").status == 200


def test_a_wrong_password_opens_nothing_and_is_in_the_audit_log(guarded):
    browser = guarded.browser()
    assert browser.sign_in("otto", "wrong").status == 401
    assert browser.sign_in("nobody", "wrong").status == 401
    assert browser.get("/session").status == 401
    events = [(line["event"], line["user"], line["outcome"]) for line in audit_lines(guarded)]
    assert events == [("sign-in", "otto", "refused"), ("sign-in", "nobody", "refused")]


def test_guessing_passwords_is_slowed_down(guarded):
    browser = guarded.browser()
    browser.get("/sign-in")
    statuses = [browser.post("/sign-in", name="otto", password=f"guess {n}").status for n in range(12)]
    assert statuses == [401] * 10 + [429] * 2


def test_signing_in_gives_a_new_session_and_signing_out_ends_it(guarded):
    browser = guarded.browser()
    browser.get("/sign-in")
    (before,) = [cookie.value for cookie in browser.cookies]
    browser.sign_in("otto")
    (after,) = list(browser.cookies)
    assert after.value != before
    assert after.has_nonstandard_attr("HttpOnly")
    assert after.get_nonstandard_attr("SameSite") == "lax"
    thief = guarded.browser()
    cookie = {"Cookie": f"{after.name}={after.value}"}
    assert thief.get("/session", cookie).status == 200
    browser.post("/sign-out")
    assert thief.get("/session", cookie).status == 401


def test_a_session_survives_a_restart_of_the_worker_but_not_the_removal_of_its_user(
    serve, users_file, tmp_path
):
    first = serve(listeners_users_file=str(users_file))
    browser = first.browser()
    browser.sign_in("vera")
    (cookie,) = browser.cookies
    session = {"Cookie": f"{cookie.name}={cookie.value}"}
    first.stop()
    again = serve(listeners_users_file=str(users_file))
    assert again.browser().get("/session", session).status == 200
    again.stop()
    users_file.write_text(users_file.read_text().replace("vera ", "# "))
    assert serve(listeners_users_file=str(users_file)).browser().get("/session", session).status == 401


def test_a_new_password_ends_the_sessions_of_the_old_one(serve, users_file):
    first = serve(listeners_users_file=str(users_file))
    sessions = {}
    for name in ("vera", "otto"):
        browser = first.browser()
        browser.sign_in(name)
        (cookie,) = browser.cookies
        sessions[name] = {"Cookie": f"{cookie.name}={cookie.value}"}
    first.stop()
    new = Account(User("otto", Role.OPERATOR), "password", hash_password("another password"))
    lines = [line for line in users_file.read_text().splitlines() if not line.startswith("otto ")]
    users_file.write_text("\n".join([*lines, new.line(), ""]))
    again = serve(listeners_users_file=str(users_file))
    statuses = {name: again.browser().get("/session", cookie).status for name, cookie in sessions.items()}
    assert statuses == {"vera": 200, "otto": 401}


def test_a_client_cannot_forge_its_address_in_the_audit_log_or_evade_the_limit_of_guesses(guarded):
    browser = guarded.browser()
    browser.get("/sign-in")
    statuses = [
        browser.post("/sign-in", {"X-Forwarded-For": f"10.0.0.{n}"}, name="otto", password=str(n)).status
        for n in range(12)
    ]
    assert statuses == [401] * 10 + [429] * 2
    assert {line["from"] for line in audit_lines(guarded)} == {"127.0.0.1"}


def test_a_viewer_changes_nothing(guarded):
    browser = guarded.browser()
    browser.sign_in("vera")
    for path in ("/alarms/shelve", "/alarms/unshelve"):
        page = browser.post(path, key="x", hours="1", reason="y")
        assert page.status == 403
        assert "vera has the role viewer; this needs the role operator" in page.html
    assert [line["event"] for line in audit_lines(guarded)] == ["sign-in"]


def test_a_form_without_the_token_of_this_session_is_refused(guarded):
    browser, other = guarded.browser(), guarded.browser()
    browser.sign_in("otto")
    other.sign_in("anna")
    for token in ("", "0" * 64, other.token, "é"):
        page = browser.post("/alarms/unshelve", key="x", form_token=token)
        assert (page.status, "too old" in page.html) == (403, True)
    assert browser.post("/alarms/unshelve", key="x").status == 200


def test_a_form_that_another_site_sent_is_refused(serve):
    browser = serve().browser()
    browser.get("/alarms")
    for origin in ("https://evil.example", "null", "", "http://[", "http://127.0.0.1:1"):
        assert browser.post("/alarms/unshelve", {"Origin": origin}, key="x").status == 403
    for site in ("cross-site", "same-site"):  # such as another port of localhost
        assert browser.post("/alarms/unshelve", {"Sec-Fetch-Site": site}, key="x").status == 403
    own = {"Origin": browser.base}
    assert browser.post("/alarms/unshelve", own, key="x").status == 200


def test_a_form_has_limits(serve):
    browser = serve().browser()
    browser.get("/alarms")
    assert browser.post("/alarms/unshelve", key="x" * 70_000).status == 413
    assert browser.post("/alarms/unshelve", **{f"f{n}": "1" for n in range(300)}).status == 400
    assert browser.post("/alarms/unshelve", {"Content-Type": "text/plain"}, key="x").status == 415
    assert browser.post("/alarms/unshelve", {"Content-Type": "multipart/form-data"}, key="x").status == 415


def test_each_change_is_in_the_audit_log_before_and_after_it(guarded):
    browser = guarded.browser()
    browser.sign_in("otto")
    browser.post("/alarms/shelve", key="unknown", hours="2", reason="testing")
    _, requested, outcome = audit_lines(guarded)
    assert (requested["event"], requested["user"], requested["from"]) == ("requested", "otto", "127.0.0.1")
    assert requested["path"] == "/ui/alarms/shelve"
    assert requested["form"] == {"key": "unknown", "hours": "2", "reason": "testing"}
    assert outcome["outcome"].startswith("refused: This alarm has ended")
    assert outcome["request"] == requested["request"]


def test_nothing_is_changed_if_the_audit_log_cannot_be_written(serve):
    served = serve()
    (served.data_dir / "audit-pages.log").mkdir()
    browser = served.browser()
    browser.get("/alarms")
    page = browser.post("/alarms/unshelve", key="x")
    assert (page.status, "Nothing was changed" in page.html) == (503, True)


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/ui//evil.example",
        "/ui/\\evil.example",
        "/registry",
        "javascript:alert(1)",
        "/ui/\nx",
        "",
    ],
)
def test_signing_in_continues_only_at_a_page_here(target):
    assert safe_target(target, "/ui") == "/ui/"


def test_another_address_needs_users(serve):
    from tieline.api import ConfigError

    with pytest.raises(
        ConfigError, match=r"listeners: other machines can reach 0\.0\.0\.0:0, and users\.file"
    ):
        serve(listeners="http://0.0.0.0:0")


def test_a_port_in_use_is_reported_before_the_start(serve):
    from tieline.api import StartupError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=rf"the page server cannot listen on 127\.0\.0\.1:{port}"):
            serve(listeners=f"http://127.0.0.1:{port}")


def test_no_more_streams_are_open_than_leave_connections_for_others(serve, monkeypatch):
    monkeypatch.setattr(app, "MAX_STREAMS", 2)
    served = serve()
    with ExitStack() as at_exit:
        for _ in range(2):
            at_exit.enter_context(urllib.request.urlopen(f"{served.url}events?channel=alarms", timeout=10))
        assert served.browser().get("/events?channel=alarms").status == 503
        assert served.browser().get("/alarms").status == 200


def test_the_pages_stop_at_once_although_streams_are_open(serve):
    served = serve()
    streams = [urllib.request.urlopen(f"{served.url}events?channel=alarms", timeout=20) for _ in range(50)]
    before = time.monotonic()
    served.stop()
    assert time.monotonic() - before < 8
    for stream in streams:
        with stream:
            stream.read()  # it ends


_SLOW = """
import sys, threading, time, urllib.request
from contextlib import ExitStack
from tieline.api.pages import Page, Pages, Route
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline.runtime.worker.worker import Worker
from tieline.ui import server

class Slow(Pages):
    def routes(self):
        return [Route("/slow", self.show)]

    def show(self, request):
        print("begun", flush=True)
        time.sleep(600)

server.load_pages = lambda context: {"slow": Slow(context)}
settings = {"listeners": "http://127.0.0.1:0", "data.dir": sys.argv[1]}
plan = check_plan("worker", settings, [])
worker = Worker(plan, open_broker(plan))
with ExitStack() as at_exit:
    pages = server.PageServer(plan, plan.listener, worker, at_exit)
    pages.start()
    threading.Thread(target=urllib.request.urlopen, args=(pages.url + "slow",), daemon=True).start()
    sys.stdin.readline()
"""


def test_a_page_that_takes_minutes_delays_the_end_of_the_worker_by_seconds(tmp_path):
    (tmp_path / "slow.py").write_text(_SLOW)
    program = [sys.executable, str(tmp_path / "slow.py"), str(tmp_path / "data")]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    with process.stdout, process.stdin:
        assert process.stdout.readline() == "begun\n"
        before = time.monotonic()
        process.stdin.write("end\n")
        process.stdin.flush()
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert time.monotonic() - before < 10
