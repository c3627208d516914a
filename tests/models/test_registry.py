import json
from dataclasses import replace

import pytest

from zoo.data.letterbox import Letterbox
from zoo.data.transforms import Preprocess
from zoo.errors import InputError
from zoo.models import registry
from zoo.models.registry import Entry, add_entry, entries, register, summarise
from zoo.weights.spec import FileWeights, Weights

FACTS = {"task": "classification", "parameters": 0.1, "preprocess": Preprocess(image_size=64), "weights": None}


@pytest.fixture(autouse=True)
def _own_entries(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", {})


def test_a_function_becomes_an_entry_of_its_name():
    @register(**FACTS, aliases=("small",))
    def tinynet(**options):
        """A network for tests.

        And more of it.
        """
        return options

    entry = entries()["tinynet"]
    assert entry.name == "tinynet"
    assert entry.summary == "A network for tests"
    assert entry.build is tinynet
    assert entry.build(num_classes=3) == {"num_classes": 3}
    assert (entry.num_classes, entry.aliases, dict(entry.options)) == (1000, ("small",), {})


def test_a_name_is_registered_once():
    def make():
        def tinynet(**options):
            return options

        return tinynet

    first = register(**FACTS)(make())
    with pytest.raises(InputError, match=r"model 'tinynet' is already registered\. Choose another name"):
        register(**FACTS)(make())
    assert entries()["tinynet"].build is first


def test_an_entry_that_is_added_takes_the_place_of_its_name():
    own = Entry(name="net", build=print, summary="", is_custom=True, **FACTS)
    add_entry(own)
    add_entry(own)
    assert entries() == {"net": own}
    assert "is_custom" not in own.describe()
    assert not make_entry(None).is_custom


def test_what_entries_returns_is_a_copy():
    @register(**FACTS)
    def tinynet(**options):
        return options

    found = entries()
    found.clear()
    assert list(entries()) == ["tinynet"]


@pytest.mark.parametrize("facts", [{"tasks": "x"}, {"name": "other"}, {"task": "x"}])
def test_facts_are_the_fields_of_an_entry(facts):
    def tinynet(**options):
        return options

    with pytest.raises(TypeError, match=r"Entry|keyword argument"):
        register(**facts)(tinynet)
    assert entries() == {}


@pytest.mark.parametrize(
    ("text", "summary"),
    [(None, ""), ("", ""), ("A net.", "A net"), ("\n    A net.\n\n    More.\n", "A net"), ("v1.0", "v1.0")],
)
def test_the_summary_is_the_first_line(text, summary):
    def build():
        pass

    build.__doc__ = text
    assert summarise(build) == summary


def make_entry(weights):
    return Entry(
        name="tinynet",
        build=print,
        summary="A network",
        aliases=("small", "tiny"),
        options={"pad_type": ("", "same")},
        paper="https://example.org",
        **FACTS | {"weights": weights},
    )


def test_it_is_described_in_plain_values():
    weights = Weights(repo="org/tiny", revision="0" * 40, sha256="1" * 64, licence="mit", top1=50.5)
    facts = make_entry(weights).describe()
    assert json.loads(json.dumps(facts)) == facts
    assert facts == {
        "name": "tinynet",
        "task": "classification",
        "summary": "A network",
        "parameters": 0.1,
        "num_classes": 1000,
        "code_licence": "Apache-2.0",
        "paper": "https://example.org",
        "aliases": ["small", "tiny"],
        "preprocess": Preprocess(image_size=64).to_dict(),
        "weights": {
            "repo": "org/tiny",
            "revision": "0" * 40,
            "sha256": "1" * 64,
            "filename": "model.safetensors",
            "licence": "mit",
            "source": "",
            "top1": 50.5,
            "mean_ap": None,
            "size": None,
            "megabytes": None,
            "notice": [],
            "pinned": True,
            "caveat": "",
        },
    }
    assert make_entry(None).describe()["weights"] is None
    entry = make_entry(None)
    entry.describe()["preprocess"]["mean"].append(1)
    entry.describe()["aliases"].clear()
    assert entry.preprocess == FACTS["preprocess"]
    assert entry.aliases == ("small", "tiny")


def test_what_only_some_models_have_is_described_if_it_is_there():
    weights = FileWeights(
        filename="a.pth", sha256="1" * 64, locations=("https://a.example/a.pth",), licence="mit", repo_setting="a_repo"
    )
    entry = replace(make_entry(weights), postprocess={"conf": 0.5}, classes=("ant", "bee"), preprocess=Letterbox())
    facts = entry.describe()
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["postprocess"], facts["classes"]) == ({"conf": 0.5}, ["ant", "bee"])
    assert facts["preprocess"] == Letterbox().to_dict()
    assert facts["weights"]["locations"] == ["https://a.example/a.pth"]
    assert facts["weights"]["pinned"]
