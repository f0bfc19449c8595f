"""A listener's settings: which addresses need users, and what is imported to check them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tieline.api import ConfigError, StartupError
from tieline.http.listener import ListenerConfig
from tieline.http.passwords import UNKNOWN_USER_HASH
from tieline.http.server import WebServer


@pytest.fixture
def users(tmp_path):
    (tmp_path / "users").write_text(f"ann admin password {UNKNOWN_USER_HASH}\n")
    return str(tmp_path / "users")


@pytest.mark.parametrize("listen", ["127.0.0.1:8081", "127.1.2.3:0", "localhost:1", "[::1]:8081"])
def test_a_listener_for_this_machine_alone_needs_no_users(listen):
    assert ListenerConfig.parse({"listen": listen}).accounts() is None


@pytest.mark.parametrize(
    "listen",
    [
        *("0.0.0.0:8081", "[::]:8081", "192.168.1.5:8081", "[2001:db8::1]:8081"),
        *("tieline.example.com:8081", "127.0.0.1.example.com:8081", "localhost.example.com:8081"),
    ],
)
def test_a_listener_that_other_machines_can_reach_is_refused_without_users(listen, users):
    with pytest.raises(ConfigError) as raised:
        ListenerConfig.parse({"listen": listen})
    (problem,) = raised.value.problems
    assert problem.key == "listen"
    assert problem.message == (
        f"other machines can reach {listen}, and users.file is not set. Create a users file with"
        " `tieline users add` and set users.file, or listen on 127.0.0.1"
    )
    assert ListenerConfig.parse({"listen": listen, "users.file": users}).accounts()


@pytest.mark.parametrize("listen", ["127.0.0.1", ":8081", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", ""])
def test_an_address_without_host_or_port_is_rejected(listen):
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        ListenerConfig.parse({"listen": listen})


def test_a_users_file_that_does_not_exist_or_has_plain_text_is_rejected_with_the_fix(tmp_path):
    (tmp_path / "old").write_text("bearer s3cret\n")
    for name, fix in (("missing", "Create it with `tieline users add`"), ("old", "--role operator --token")):
        with pytest.raises(ConfigError) as raised:
            ListenerConfig.parse({"listen": "127.0.0.1:0", "users.file": str(tmp_path / name)})
        assert fix in str(raised.value)
        assert "s3cret" not in str(raised.value)


def test_all_problems_of_a_listener_are_reported_together(tmp_path):
    settings = {
        "listen": "0.0.0.0:1",
        "ssl.key.location": str(tmp_path / "key"),
        "max.request.bytes": "7",
    }
    with pytest.raises(ConfigError) as raised:
        ListenerConfig.parse(settings)
    keys = {problem.key for problem in raised.value.problems}
    assert keys == {"listen", "ssl.key.location", "max.request.bytes"}


def test_an_address_in_use_is_a_startup_error_that_names_the_server():
    async def app(scope, receive, send):
        raise AssertionError

    first = WebServer.listen(app, ListenerConfig.parse({"listen": "127.0.0.1:0"}), name="test server")
    first.start()
    config = ListenerConfig.parse({"listen": first.url.removeprefix("http://")})
    with pytest.raises(StartupError, match=r"the test server cannot listen on 127\.0\.0\.1:\d+: "):
        WebServer.listen(app, config, name="test server")
    first.stop()


def test_checking_a_configuration_imports_no_http_framework(users):
    program = (
        "import sys\n"
        "from tieline.config.plan import check_plan\n"
        "registry = {'schema.registry.url': 'embedded', 'schema.registry.listen': '0.0.0.0:0',"
        f" 'schema.registry.users.file': {users!r}}}\n"
        "assert check_plan('worker', registry, []).registry is not None\n"
        "print(sorted({'starlette', 'uvicorn', 'anyio', 'argon2'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
