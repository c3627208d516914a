import pytest

from zoo.errors import LicenceError
from zoo.weights.licence import Licence, check_commercial


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
def test_commercial_is_what_the_weights_allow(weights, expected):
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
def test_commercial_use_can_be_asked_for(monkeypatch, licence, commercial, environment, refused):
    monkeypatch.setenv("ZOO_COMMERCIAL_ONLY", environment)
    if not refused:
        check_commercial("tiny", licence, commercial)
        return
    with pytest.raises(LicenceError, match=rf"weights of tiny have the licence {licence or 'unknown'}, which is not"):
        check_commercial("tiny", licence, commercial)
