import pytest

from zoo.weights.user_config import Config, config, find_setting


def test_nothing_is_set_at_first_and_nothing_unknown():
    assert Config() == config == Config(yolo_nas_repo=None)
    assert find_setting("yolo_nas_repo") is None
    with pytest.raises(AttributeError):
        find_setting("yolo_nas_repos")


def test_the_environment_comes_before_the_settings_of_the_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(config, "yolo_nas_repo", "org/mine")
    assert find_setting("yolo_nas_repo") == "org/mine"
    monkeypatch.setenv("ZOO_YOLO_NAS_REPO", "org/theirs")
    assert find_setting("yolo_nas_repo") == "org/theirs"
    monkeypatch.setenv("ZOO_YOLO_NAS_REPO", "")
    assert find_setting("yolo_nas_repo") == "org/mine"
