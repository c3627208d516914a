from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import zoo
from hub_server import HubServer
from small_run import change_config, write_run
from tools import push_command
from tools.push_command import push
from zoo.errors import InputError, LicenceError
from zoo.training.run_folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # how the client uploads
REPO = "org/garden"

app = typer.Typer()
app.command()(push)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run")


def call(run: RunFolder, *arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, [str(run.path), REPO, *arguments], input=answer)


def test_it_asks_before_it_sends(hub: HubServer, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_command, "_has_terminal", lambda: True)
    refused = call(run, "--public", answer="n\n")
    assert refused.exit_code == 0
    lines = refused.stdout.splitlines()
    assert lines[0] == f"to {hub.endpoint}/{REPO} (public if it is new):"
    assert lines[-1] == f"nothing was uploaded to {hub.endpoint}/{REPO}"
    assert "Upload this? [y/N]" in refused.stdout
    assert not hub.requests
    sent = call(run, "--public", "--message", "first try", answer="y\n")
    commit = hub.store.resolve(REPO, "main")[0]
    assert sent.stdout.splitlines()[-1] == f"uploaded to {hub.endpoint}/{REPO}; load it with zoo.get('{REPO}@{commit}')"
    assert zoo.get(REPO).classes == ("ant", "bee")


def test_without_a_terminal_it_wants_a_yes(hub: HubServer, run: RunFolder) -> None:
    result = call(run, "--public")
    assert isinstance(result.exception, InputError)
    assert "Pass --yes to upload, or --dry-run to preview." in str(result.exception)
    assert not hub.requests
    assert call(run, "--public", "--yes", "--no-pictures").exit_code == 0
    assert not any(name.startswith("pictures/") for name in hub.store.resolve(REPO, "main")[1])


def test_a_dry_run(hub: HubServer, run: RunFolder) -> None:
    result = call(run, "--dry-run", "--revision", "dev")
    assert result.stdout.splitlines()[0] == f"to {hub.endpoint}/{REPO} (private if it is new, branch dev):"
    assert f"nothing was uploaded to {hub.endpoint}/{REPO}" in result.stdout
    assert "Send this?" not in result.stdout
    assert not hub.requests


def test_it_is_private_unless_it_is_said(hub: HubServer, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.tokens = {"hf_writer"}
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    assert call(run, "--yes").exit_code == 0
    assert hub.private == {REPO}


def test_what_may_not_go_does_not(hub: HubServer, run: RunFolder) -> None:
    change_config(run, licence="licenseref-yolo-nas-non-commercial")
    assert isinstance(call(run, "--yes").exception, LicenceError)
    run.save_state({})
    assert "is not finished" in str(call(run, "--yes").exception)
    assert not hub.requests
