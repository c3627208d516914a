import pytest

from training.loggers.contract import LoggerContract
from zoo.training.loggers.base import find_loggers


class TestEveryLogger(LoggerContract):
    @pytest.fixture(params=find_loggers(), ids=lambda kind: kind.__name__)
    def kind(self, request):
        return request.param


def test_loggers_are_found_by_their_folder():
    names = [kind.__name__ for kind in find_loggers()]
    assert names[0] == "Files"
    assert names[-1] == "Console"
    assert "Plots" in names
