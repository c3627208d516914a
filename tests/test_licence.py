import pytest

from zoo.licence import Licence


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
