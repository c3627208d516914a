import pytest

from zoo.errors import LicenceError
from zoo.models.catalog import list_models
from zoo.models.families.yolo_nas import LICENCE
from zoo.models.registry import entries
from zoo.weights.licence import _TERMS, Licence, check_commercial, find_terms


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, True),
        ("apache-2.0", True),
        ("cc-by-nc-4.0", False),
        ("licenseref-yolo-nas-non-commercial", False),
        ("unknown", False),
    ],
)
def test_commercial_is_what_the_weights_allow(weights, expected) -> None:
    assert Licence("Apache-2.0", weights).commercial is expected


@pytest.mark.parametrize(
    ("licence", "commercial", "environment", "refused"),
    [
        ("apache-2.0", True, "", False),
        ("cc-by-nc-4.0", True, "", True),
        (None, True, "", True),
        ("cc-by-nc-4.0", None, "", False),
        ("cc-by-nc-4.0", None, "0", False),
        ("cc-by-nc-4.0", None, "1", True),
        ("cc-by-nc-4.0", False, "1", False),
    ],
)
def test_commercial_use_can_be_asked_for(monkeypatch, licence, commercial, environment, refused) -> None:
    monkeypatch.setenv("ZOO_COMMERCIAL_ONLY", environment)
    if not refused:
        check_commercial("tiny", licence, commercial)
        return
    with pytest.raises(LicenceError, match=rf"weights of tiny have the licence {licence or 'unknown'}, which is not"):
        check_commercial("tiny", licence, commercial)


def test_every_licence_of_the_registry_is_known() -> None:
    list_models()
    licences = {entry.weights.licence for entry in entries().values() if entry.weights}
    assert LICENCE in licences
    for licence in licences - {"unknown"}:
        assert find_terms(licence).link.startswith("https://"), licence
    terms = find_terms("licenseref-garden")
    assert (terms.name, terms.link, terms.on_hub) == ("licenseref-garden", "", False)
    assert terms.words == "terms unknown to zoo"
    assert terms.may_pass_on, "nobody can tell; the push says so"
    assert not any(terms.words.endswith(".") for terms in _TERMS.values())
    assert all(key == key.lower() for key in _TERMS)


@pytest.mark.parametrize("licence", ["apache-2.0", "Apache-2.0", " MIT ", "bsd-3-clause", "cc-by-nc-4.0"])
def test_licences_under_which_copies_may_be_given_away(licence: str) -> None:
    terms = find_terms(licence)
    assert terms.may_pass_on
    assert terms.on_hub
    assert "redistribution" in terms.words


@pytest.mark.parametrize("licence", [LICENCE, "cc-by-nd-4.0", "cc-by-nc-nd-4.0"])
def test_licences_under_which_they_may_not(licence: str) -> None:
    assert not find_terms(licence).may_pass_on
