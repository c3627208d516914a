import errno
from pathlib import Path

import pytest

from zoo.errors import DataError, InputError, Interrupted, StorageError, TrainingError
from zoo.training.failures import going_on, say_how_to_resume


def fail(error, **options):
    with going_on(lambda: "The run is safe.", **options):
        raise error


def test_what_to_type_names_what_no_file_holds():
    assert say_how_to_resume(Path("runs/a b")) == "Resume with: zoo finetune --resume 'runs/a b'"
    text = say_how_to_resume(Path("runs/a"), ["data", "model"])
    assert text == "Resume with: zoo.resume('runs/a', data=data, model=model), with the same data and model as before."
    with pytest.raises(Interrupted, match=r"^stopped after 2 epochs\.$"):
        fail(Interrupted("stopped after 2 epochs."))


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            OSError(errno.ENOSPC, "No space left", "/x"),
            StorageError,
            "/x cannot be used: No space left. The run is safe.",
        ),
        (StorageError("a cannot be written."), StorageError, "a cannot be written. The run is safe."),
        (DataError("image 'a' is gone."), DataError, "image 'a' is gone. The run is safe."),
        (
            MemoryError(),
            TrainingError,
            r"memory \(allocation failed\)\. Use a smaller batch_size or fewer num_workers\. The run is safe\.",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 25338) exited unexpectedly"),
            TrainingError,
            r"a data-loading worker process died \(DataLoader worker \(pid\(s\) 25338\) .*is safe\.",
        ),
        (KeyboardInterrupt(), Interrupted, "stopped at once. The run is safe."),
    ],
)
def test_what_the_system_has_ended_is_one_sentence_and_how_to_go_on(error, kind, text):
    with pytest.raises(kind, match=text):
        fail(error)


@pytest.mark.parametrize("error", [InputError("wrong"), TrainingError("the loss is nan")])
def test_errors_of_the_run_itself_are_left_as_they_are(error):
    with pytest.raises(type(error), match=rf"^{error}$") as caught:
        fail(error)
    assert not getattr(caught.value, "__notes__", [])


@pytest.mark.parametrize("error", [KeyError("mine"), RuntimeError("mine"), BrokenPipeError(errno.EPIPE, "pipe")])
def test_foreign_errors_keep_kind_and_cause_and_get_a_note(error):
    with pytest.raises(type(error)) as caught:
        fail(error)
    assert caught.value is error
    assert error.__notes__ == ["The run is safe."]
