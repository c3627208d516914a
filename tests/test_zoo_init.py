import pytest

import zoo


def test_every_public_name_is_there_and_no_other():
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
    assert set(dir(zoo)) >= {"get", "finetune", "plan", "evaluate", "load", "list_models", "describe"}
    with pytest.raises(AttributeError, match="finetun"):
        _ = zoo.finetun
