import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, constants
from PIL import Image

import zoo
from coloured_folder import write_coloured
from exporters.contract import ExporterContract
from hub_server import HubServer
from small_run import TINY, write_run
from tools.cli import main
from zoo.errors import InputError, WeightsAccessError, WeightsError, WeightsNetworkError, WeightsNotFoundError
from zoo.exporters.hub import Push, push
from zoo.files.safetensors import sha256_file
from zoo.training.run_model import load_model

REPO = "org/colours"
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
FILES = {
    "README.md", "config.json", "evaluation.json", "metrics.jsonl", "model.safetensors", "plan.json", "preset.yaml",
    "proof.json", "pictures/curves.png", "pictures/mistakes.png",
}  # fmt: skip
DRAWN = {"pictures/confusion.png", "pictures/first_batch.png", "pictures/rates.png"}  # what a real run has, too
REQUESTS = (
    r"GET /api/models/org/colours$",
    r"POST /api/repos/create",
    r"GET /api/models/org/colours/revision/main",
    r"POST /api/validate-yaml",
    r"POST /api/models/org/colours/preupload/main",
    r"POST /org/colours\.git/info/lfs/objects/batch",
    r"PUT /upload/",
    r"POST /api/models/org/colours/commit/main",
)
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # how the client uploads


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits: not the client, which tries some requests again."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("trained")
    images = write_coloured(place / "colours", train=4, val=2)
    model = zoo.get(TINY, num_classes=3)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "image_size": 32, "num_workers": 0, "device": "cpu"}
    return Path(zoo.finetune(model, images, lr=0.05, out=place / "run", progress=False, **options).folder)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run").path


def published(hub: HubServer, repo: str = REPO, revision: str = "main") -> set[str]:
    return set(hub.store.resolve(repo, revision)[1]) - {".gitattributes"}


def content(hub: HubServer, name: str, repo: str = REPO) -> str:
    return hub.store.resolve(repo, "main")[1][name].local.read_text()


def send(source: Any, repo: str = REPO, **options: Any) -> Push:
    return push(source, repo, log=[].append, **({"token": "hf_writer"} | options))


def refusal(run: Any, **options: Any) -> str:
    with pytest.raises(WeightsError, match=r"^pushing to ") as caught:
        send(run, **options)
    assert "\n" not in str(caught.value)
    assert "hf_writer" not in str(caught.value)
    assert caught.value.__cause__ is not None
    return str(caught.value)


def assert_same(one: Any, other: Any) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (one.classes, one.preprocess) == (other.classes, other.preprocess)
    with torch.no_grad():
        assert torch.equal(one(IMAGES), other(IMAGES))


class TestHub(ExporterContract):
    name = "hub"
    options = {"token": "hf_writer", "log": [].append}  # noqa: RUF012

    @pytest.fixture
    def target(self, hub: HubServer) -> str:
        return REPO


def test_a_run_goes_and_comes_back_bit_by_bit(hub: HubServer, trained: Path) -> None:
    lines: list[str] = []
    sent = push(trained, REPO, token="hf_writer", log=lines.append)
    assert published(hub) == FILES | DRAWN
    assert sent.commit == hub.store.resolve(REPO, "main")[0]
    assert (sent.address, sent.created, sent.revision) == (f"{hub.endpoint}/{REPO}", True, "main")
    assert lines[-1] == f"uploaded to {hub.endpoint}/{REPO}; load it with zoo.get('{REPO}@{sent.commit}')"
    assert hub.private == {REPO}, "private unless it is said otherwise"
    assert sha256_file(trained / "model.safetensors") == sha256_file(
        hub.store.resolve(REPO, "main")[1]["model.safetensors"].local
    )
    for place in (REPO, f"{REPO}@main", f"{REPO}@{sent.commit}"):
        for loaded in (load_model(place, token="hf_reader"), zoo.get(place, token="hf_reader")):
            assert_same(loaded, load_model(trained))
            assert loaded.config["origin"]["revision"] == sent.commit
            assert loaded.config["origin"]["pretrained"] == f"{REPO}@{sent.commit}"
            assert loaded.load_report.revision == sent.commit


def test_the_page_tells_how_to_use_it_and_that_works(
    hub: HubServer, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send(trained, private=False)
    page = content(hub, "README.md")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40), (200, 50, 50)).save("photo.jpg")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert f'zoo.get("{REPO}")' in code
    exec(code, {})
    assert capsys.readouterr().out == f"{zoo.load(trained).predict('photo.jpg')[0]}\n"
    (command,) = re.findall(r"```sh\nzoo (.*?)  #", page)
    words = command.replace("path/to/images", str(tmp_path / "images")).split()
    assert words[-2:] == ["--weights", REPO]
    write_coloured(tmp_path / "images", train=2, val=1)
    options = ["--epochs", "1", "--batch-size", "4", "--image-size", "32", "--device", "cpu", "--set", "num_workers=0"]
    assert main([*words, *options, "-o", "again"]) == 0
    assert json.loads(Path("again/config.json").read_text())["origin"]["weights"] == f"{hub.endpoint}/{REPO}"


def test_a_parent_on_the_hub_is_named(hub: HubServer, run: Path, tmp_path: Path) -> None:
    parent = send(run, "org/parent", private=False)
    model = zoo.get("org/parent", classes=["ant", "bee"])
    made = send(model, "org/child", private=False)
    page = content(hub, "README.md", "org/child")
    assert "\nbase_model:\n- org/parent\n" in page
    assert f"Fine-tuned from {hub.endpoint}/org/parent, commit `{parent.commit}`" in page
    child = zoo.get(f"org/child@{made.commit}")
    assert_same(child, model)
    assert child.classes == ("ant", "bee")


def test_what_goes_is_told_before_the_first_request(hub: HubServer, run: Path) -> None:
    lines: list[str] = []
    asked: list[int] = []

    def confirm() -> bool:
        asked.append(len(lines))
        assert not hub.requests
        return False

    made = push(run, REPO, log=lines.append, confirm=confirm)
    assert asked == [len(lines)] == [1 + len(FILES) + 3]
    assert lines[0] == f"to {hub.endpoint}/{REPO} (private if it is new):"
    told = {line.split()[0]: line.split()[1:] for line in lines[1 : 1 + len(FILES)]}
    assert told.keys() == FILES == {name for name, _ in made.files}
    assert told["model.safetensors"] == ["1.5", "MB"]
    assert lines[-3].split()[:2] == [str(len(FILES)), "files"]
    assert lines[-2] == "licence of the weights: none stated"
    assert lines[-1].startswith("note: some plots show images of the data")
    assert made.commit is None
    assert str(made) == f"nothing was uploaded to {hub.endpoint}/{REPO}"


def test_a_dry_run_sends_nothing_and_everybody_may_be_meant(hub: HubServer, run: Path) -> None:
    made = send(run, dry_run=True, private=False, revision="dev")
    assert (made.commit, {name for name, _ in made.files}, made.revision) == (None, FILES, "dev")
    assert not hub.requests
    send(run, private=False)
    assert not hub.private
    assert_same(zoo.load(REPO), zoo.load(run))


def test_a_second_push_is_a_second_commit_without_what_is_old(hub: HubServer, run: Path) -> None:
    first = send(run)
    hub.add(REPO, {"notes.txt": b"mine", **stored(hub)})
    (run / "evaluation.json").unlink()
    hub.requests.clear()
    second = send(run, pictures=False, message="without plots")
    assert first.commit != second.commit
    assert second.created is False
    kept = {name for name in FILES if not name.startswith("pictures/")} - {"evaluation.json"}
    assert published(hub) == kept | {"notes.txt"}, "what is not ours stays"
    assert hub.count("PUT /upload") == 0, "the weights are there already"
    lines: list[str] = []
    assert push(run, REPO, pictures=False, token="hf_writer", log=lines.append).commit == second.commit
    assert lines[-2] == "all files are already up to date; no commit was made"


def test_a_branch(hub: HubServer, run: Path) -> None:
    main = send(run)
    (run / "metrics.jsonl").unlink()
    sent = send(run, revision="second/try")
    assert hub.store.resolve(REPO, "main")[0] == main.commit
    assert published(hub, revision="second/try") == FILES - {"metrics.jsonl"}
    assert_same(zoo.get(f"{REPO}@second/try", token="hf_reader"), zoo.load(run))
    assert send(run, revision="second/try").commit == sent.commit


def test_a_public_repository_is_not_written_to_by_mistake(hub: HubServer, run: Path) -> None:
    before = send(run, private=False).commit
    (run / "metrics.jsonl").unlink()
    with pytest.raises(
        InputError, match=r"exists and is public: everybody can see what you upload\. Pass --public \(private=False\)"
    ):
        send(run)
    assert hub.store.resolve(REPO, "main")[0] == before


def stored(hub: HubServer) -> dict[str, bytes]:
    return {name: entry.local.read_bytes() for name, entry in hub.store.resolve(REPO, "main")[1].items()}


@pytest.mark.parametrize("fault", [{"status": 500}, {"reset": True}], ids=str)
@pytest.mark.parametrize("request_", REQUESTS)
def test_a_push_that_breaks_off_leaves_what_was_there(
    hub: HubServer, run: Path, request_: str, fault: dict[str, Any]
) -> None:
    hub.fail(request_, times=None, **fault)
    text = refusal(run)
    assert re.search(
        "failed, (nothing was (created|changed)|the repository was created and is empty|it is unknown)", text
    )
    assert not hub.store.exists(REPO) or published(hub) == set()
    hub.faults.clear()
    assert send(run).commit == hub.store.resolve(REPO, "main")[0]
    assert published(hub) == FILES


@pytest.mark.parametrize("request_", REQUESTS[2:])
def test_an_update_that_breaks_off_leaves_the_old_revision(hub: HubServer, run: Path, request_: str) -> None:
    before = send(zoo.get(TINY, num_classes=2)).commit
    hub.fail(request_, times=None, status=503)
    text = refusal(run)
    assert "answered 503. Push again" in text or "Expecting value" in text
    hub.faults.clear()
    assert hub.store.resolve(REPO, "main")[0] == before
    assert zoo.get(REPO, token="hf_reader").num_classes == 2


def test_an_answer_that_is_lost_is_told(hub: HubServer, run: Path) -> None:
    hub.fail("POST .*/commit/main", truncate=3, reset=True)
    text = refusal(run)
    head = hub.store.resolve(REPO, "main")[0]
    assert f"failed, its head has moved to {head}" in text


@pytest.mark.parametrize(
    ("request_", "status", "kind", "words"),
    [
        (REQUESTS[0], 401, WeightsAccessError, r"no valid token was sent \(401\)\. Log in \(hf"),
        (
            REQUESTS[1],
            403,
            WeightsAccessError,
            r"has no write access \(403\)\. Create a.*/settings/tokens",
        ),
        (REQUESTS[1], 409, WeightsError, r"it exists, but this token has no access to it, .* \(409\)"),
        (
            REQUESTS[4],
            403,
            WeightsAccessError,
            r"the repository was created and is empty: the token has no write access",
        ),
        (REQUESTS[4], 404, WeightsNotFoundError, r"this token has no access to it \(404\)"),
        (REQUESTS[7], 412, WeightsError, r"somebody else committed to it in the meantime \(412\)"),
        (REQUESTS[7], 413, WeightsError, r"too large for the Hub \(413\)"),
        (REQUESTS[7], 429, WeightsNetworkError, r"requests \(429\)"),
    ],
)
def test_what_the_hub_refuses(
    hub: HubServer, run: Path, request_: str, status: int, kind: type[WeightsError], words: str
) -> None:
    hub.fail(request_, status=status, times=None)
    with pytest.raises(WeightsError, match=words) as caught:
        send(run)
    assert type(caught.value) is kind


def test_tokens(hub: HubServer, run: Path) -> None:
    hub.tokens, hub.readers = {"hf_writer", "hf_reader"}, {"hf_reader"}
    assert "no valid token was sent" in refusal(run, token=False)
    assert "no valid token was sent" in refusal(run, token="hf_wrong")
    text = refusal(run, token="hf_reader")
    assert "nothing was created: the token has no write access (403)" in text
    assert "hf_reader" not in text
    assert not hub.store.exists(REPO)
    send(run)
    assert ", nothing was changed: the token has no write access (403)" in refusal(run / ".", token="hf_reader")


def test_a_race_is_lost_without_harm(hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send(run)
    create_commit = HfApi.create_commit

    def late(api: HfApi, *args: Any, **options: Any) -> Any:
        hub.add(REPO, {"notes.txt": b"somebody else"})
        return create_commit(api, *args, **options)

    monkeypatch.setattr(HfApi, "create_commit", late)
    (run / "metrics.jsonl").unlink()
    assert "its head has moved to" in refusal(run)
    assert published(hub) == {"notes.txt"}


def test_offline(hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal(run).endswith("nothing was changed: HF_HUB_OFFLINE is set. Unset it to upload.")
    assert not hub.requests


def test_plain_http_is_refused_away_from_this_machine(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror.example")
    with pytest.raises(WeightsError, match=r"http://mirror\.example, .*read the token.*ZOO_ALLOW_HTTP=1"):
        send(run)


def test_an_endpoint_without_xet(run: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("xet-write-token not found")

    monkeypatch.setattr(HfApi, "create_commit", fail)
    assert "does not support Xet storage, set HF_HUB_DISABLE_XET=1 before Python starts" in refusal(run)


@pytest.mark.parametrize("repo", ["colours", "org/", "/colours", "a/b/c", "org/col ours", "../x", 5, "org/x@main"])
def test_names_that_are_none(hub: HubServer, run: Path, repo: Any) -> None:
    with pytest.raises(InputError, match=r"^repo is .*; expected 'org/name' or 'user/name'"):
        send(run, repo)
    assert not hub.requests


@pytest.mark.parametrize("revision", ["", "a b", 5, "0" * 40])
def test_branches_that_are_none(run: Path, revision: Any) -> None:
    with pytest.raises(InputError, match=r"^revision is .*; expected|cannot be changed"):
        send(run, revision=revision)


def test_a_page_that_the_hub_does_not_understand(hub: HubServer, run: Path) -> None:
    answer = {"errors": [{"message": "license is not one of these"}], "warnings": []}
    hub.fail("POST /api/validate-yaml", status=400, body=json.dumps(answer).encode(), times=None)
    text = refusal(run)
    assert "the repository was created and is empty" in text
    assert "license is not one of these" in text
