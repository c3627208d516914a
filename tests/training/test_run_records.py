import pytest

from zoo.training.run_records import check_record

DATA = {"source": "d", "classes": ["a", "b"], "digest": "0", "files": {"train": {"x": "1"}}, "more": 1}


def test_what_a_run_writes_passes() -> None:
    check_record("data.json", DATA)
    check_record("run.json", {"status": "finished", "epoch": 1, "step": 2, "loss_sum": 0.0})
    check_record("other.json", None)


@pytest.mark.parametrize("value", [None, [], {}, 1, "x", [DATA], True])
def test_something_else_is_told(value: object) -> None:
    with pytest.raises(ValueError, match="source: Field required" if value == {} else "expected a JSON object"):
        check_record("data.json", value)


@pytest.mark.parametrize("key", sorted(DATA.keys() - {"more"}))
@pytest.mark.parametrize("wrong", [1, {}, [], [1], {"a": 1}, True, 0.5, {"train": []}])
def test_wrong_types_are_told_by_name(key: str, wrong: object) -> None:
    if (key, wrong) == ("files", {}):
        return
    with pytest.raises(ValueError, match=f"^{key}"):
        check_record("data.json", DATA | {key: wrong})


@pytest.mark.parametrize("value", [None, [], {"status": 1}, {"epoch": -1}, {"step": "2"}])
def test_a_status_in_another_form(value: object) -> None:
    with pytest.raises(ValueError, match=":" if value else "expected a JSON object"):
        check_record("run.json", value)
