import pytest

from zoo.models.catalog import list_models
from zoo.models.families.yolo_nas import LICENCE
from zoo.models.registry import entries
from zoo.weights.licence_terms import _TERMS, find_terms


def test_every_licence_of_the_registry_is_known() -> None:
    list_models()
    licences = {entry.weights.licence for entry in entries().values() if entry.weights}
    assert LICENCE in licences
    for licence in licences - {"unknown"}:
        assert find_terms(licence).link.startswith("https://"), licence


@pytest.mark.parametrize("licence", ["apache-2.0", "Apache-2.0", " MIT ", "bsd-3-clause", "cc-by-nc-4.0"])
def test_licences_under_which_copies_may_be_given_away(licence: str) -> None:
    terms = find_terms(licence)
    assert terms.may_pass_on
    assert terms.on_hub
    assert "pass on" in terms.words


@pytest.mark.parametrize("licence", [LICENCE, "cc-by-nd-4.0", "cc-by-nc-nd-4.0"])
def test_licences_under_which_they_may_not(licence: str) -> None:
    assert not find_terms(licence).may_pass_on


def test_a_licence_of_somebodys_own() -> None:
    terms = find_terms("licenseref-garden")
    assert (terms.name, terms.link, terms.on_hub) == ("licenseref-garden", "", False)
    assert terms.words == "its terms are not known here"
    assert terms.may_pass_on, "nobody can tell; the push says so"


def test_sentences_have_no_full_stop_of_their_own() -> None:
    assert not any(terms.words.endswith(".") for terms in _TERMS.values())
    assert all(key == key.lower() for key in _TERMS)
