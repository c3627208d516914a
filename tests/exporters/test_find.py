import pytest

from zoo.errors import InputError
from zoo.exporters import find_exporter, list_exporters, push


def test_exporters_are_the_modules_of_the_folder():
    assert "hub" in list_exporters()
    assert find_exporter("hub") is push
    for name in list_exporters():
        assert callable(find_exporter(name))
    assert not [name for name in list_exporters() if name.startswith("_")]
    with pytest.raises(InputError, match=r"unknown exporter 'hbu'\. Did you mean 'hub'\? Known: .*hub"):
        find_exporter("hbu")
    with pytest.raises(InputError, match="unknown exporter '_card'"):
        find_exporter("_card")
