"""What a person sends from the form is what the policy has allowed, once, and confirmed if it must be."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.command.pages.conftest import command, result

from tieline.api import RetriableError
from tieline.api.pages import PageError, Viewer
from tieline.ui.templating import Templates
from tieline_connectors.command.pages import plant, plugin

TEMPLATES = Templates({"command": Path(plugin.__file__).with_name("templates")})
COMMON = {
    **dict.fromkeys(
        ("base", "title", "worker", "current", "theme", "boot", "form_token_name", "form_token"), ""
    ),
    "asset": str,
    "menu": (),
    "viewer": Viewer("otto", "operator"),
    "time_zone": "UTC",
    "can_sign_out": True,
}
CHILLER, BOILER, SETPOINT = "campus/b1/ahu1/Chiller", "campus/b1/ahu1/Boiler", "campus/b1/ahu1/Setpoint"


def test_the_issuer_is_the_person_who_is_signed_in_whatever_the_form_says(site):
    site.post("/set", "anna", point=SETPOINT, value="70", command_id="c1", issuer="otto", platform="other")
    (sent,) = site.sent
    assert (sent["issuer"], sent["platform"]) == ("anna", "lab")


@pytest.mark.parametrize(
    "spelling",
    [CHILLER, f"devices/{CHILLER}", f"/{CHILLER}/", f"/devices/{CHILLER}", "CAMPUS/b1/ahu1/CHILLER"],
)
def test_no_spelling_of_a_protected_point_evades_its_confirmation(site, spelling):
    for confirmed in ("", "Chiller", "x"):
        with pytest.raises(PageError, match="is protected"):
            site.post("/set", point=spelling, value="true", command_id="c1", confirmed=confirmed)
    assert site.sent == []
    site.post("/set", point=spelling, value="true", command_id="c1", confirmed=spelling)
    assert len(site.sent) == 1


def test_a_null_value_needs_the_confirmation_of_the_revert_that_it_is(site):
    with pytest.raises(PageError, match="is protected"):
        site.post("/set", point=BOILER, value="null", command_id="c1")
    site.post("/set", point=BOILER, value="true", command_id="c2")
    assert [value["command_id"] for value in site.sent] == ["c2"]


def test_the_page_shows_the_point_in_the_form_that_is_sent(site):
    page = site.post("/set/check", point=f"/devices/{SETPOINT}/", value="70", command_id="c1")
    assert (page.values["form"].point, page.values["is_allowed"]) == (SETPOINT, True)


def test_what_the_policy_no_longer_allows_is_not_sent(site):
    form = {"point": SETPOINT, "value": "70", "command_id": "c1"}
    assert site.post("/set/check", **form).values["is_allowed"]
    policy = site.folder / "policy.yaml"
    policy.write_text(policy.read_text().replace("max: 85", "max: 65"))
    with pytest.raises(PageError, match="Nothing was sent: POLICY_MAX"):
        site.post("/set", **form)
    assert site.sent == []


def test_a_point_that_became_protected_after_the_check_needs_its_confirmation(site):
    form = {"point": SETPOINT, "value": "70", "command_id": "c1"}
    assert not site.post("/set/check", **form).values["is_protected"]
    policy = site.folder / "policy.yaml"
    policy.write_text(policy.read_text().replace("type: float,", "type: float, confirmation: true,"))
    with pytest.raises(PageError, match="is protected"):
        site.post("/set", **form)


def test_a_policy_that_changes_during_the_sending_does_not_change_the_command(site):
    policy = site.folder / "policy.yaml"
    as_text = "type: text, values: ['70']"
    site.context.client.before_send = lambda _: policy.write_text(
        policy.read_text().replace("type: float, min: 60, max: 85", as_text)
    )
    site.post("/set", point=SETPOINT, value="70", command_id="c1")
    assert site.sent[0]["writes"] == [{"point": SETPOINT, "value": 70}]


def test_a_double_click_sends_the_same_command(site):
    for _ in range(2):
        site.post("/set", point=SETPOINT, value="70", command_id="c1", hold="15m")
    first, second = site.sent
    assert first == second  # the sink executes it once, and answers the second as the first


def test_a_command_whose_sending_failed_is_the_same_command_when_it_is_sent_again(site):
    tried = []

    def fail(records):
        tried.extend(records)
        raise RetriableError("no answer")

    site.context.client.before_send = fail
    form = {"point": SETPOINT, "value": "70", "command_id": "c1"}
    with pytest.raises(PageError, match="It is unknown whether"):
        site.post("/set", **form)
    site.context.client.before_send = lambda _: None
    site.post("/set", **form)
    assert site.sent[0] == tried[0].value


@pytest.mark.parametrize(
    "change", [{"value": "71"}, {"value": "70", "hold": "5m"}, {"user": "anna", "value": "70"}]
)
def test_an_id_that_was_used_sends_no_other_command(site, change):
    site.post("/set", point=SETPOINT, value="70", command_id="c1")
    with pytest.raises(PageError, match="another command with the id c1") as refused:
        site.post("/set", point=SETPOINT, command_id="c1", **change)
    assert refused.value.status == 409
    assert len(site.sent) == 1


def test_the_release_of_a_hold_reverts_all_of_its_points(site):
    points = [SETPOINT, "campus/b1/ahu1/Other"]
    writes = [{"point": point, "value": 70.0} for point in points]
    site.add(command(hold_ms=900_000, writes=writes))
    site.add(result(writes=[{"point": point, "outcome": "VERIFIED"} for point in points]), "results")
    site.post("/holds/release", command_id="c1")
    (sent,) = site.sent
    assert (sent["action"], [write["point"] for write in sent["writes"]]) == ("REVERT", points)


def test_the_release_of_a_protected_point_needs_its_confirmation(site):
    site.add(command(hold_ms=900_000, writes=[{"point": BOILER, "value": True}]))
    site.add(result(writes=[{"point": BOILER, "outcome": "VERIFIED"}]))
    with pytest.raises(PageError, match="is protected"):
        site.post("/holds/release", command_id="c1")
    site.post("/holds/release", command_id="c1", confirmed=BOILER)
    assert len(site.sent) == 1


def test_a_hold_of_another_sink_is_not_released_on_this_platform(site):
    site.add(command(hold_ms=900_000), "commands-of-another-worker")
    site.add(command("c2", hold_ms=900_000, platform="another"))
    for command_id in ("c1", "c2"):
        site.add(result(command_id))
        with pytest.raises(PageError, match="No command sink of this worker"):
            site.post("/holds/release", command_id=command_id)
    assert site.sent == []


def test_an_empty_file_of_the_kill_switch_counts_as_engaged_on_every_page(site):
    (site.folder / "kill").touch()
    page = site.get("/command-sinks")
    extra = {**COMMON, **page.values}
    assert "Engaged, nothing is written: no reason is given" in TEMPLATES.render(page.template, extra)
    page = site.get("/set", point=SETPOINT)
    extra = {**COMMON, **page.values}
    assert "The kill switch is engaged" in TEMPLATES.render(page.template, extra)


def test_the_reason_of_the_kill_switch_begins_with_who_engaged_it(site):
    site.post("/command-sinks/kill", reason="x\n\x1b[2J" + "y" * 1000)
    text = (site.folder / "kill").read_text()
    assert text.startswith("otto: x [2Jy")
    assert len(text) == 501


def test_the_audit_log_is_verified_by_one_request_at_a_time(site, monkeypatch):
    refused = []

    def verify_while_another_asks(path):
        with pytest.raises(PageError, match="being verified already") as error:
            site.get("/command-sinks", verify="1")
        refused.append(error.value.status)

    monkeypatch.setattr(plant, "verify_file", verify_while_another_asks)
    (site.folder / "audit.log").touch()
    for _ in range(2):
        site.get("/command-sinks", verify="1")
    assert refused == [429, 429]
