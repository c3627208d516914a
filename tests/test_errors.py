import pytest

from zoo import errors
from zoo.errors import did_you_mean


def test_every_error_is_one_family_and_also_the_builtin_that_fits():
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.WeightsError, OSError)
    assert issubclass(errors.FrozenError, RuntimeError)
    kinds = [errors.InputError, errors.WeightsError, errors.FrozenError, errors.LicenceError, errors.TrainingError]
    assert all(issubclass(kind, errors.ZooError) for kind in kinds)
    assert issubclass(errors.Interrupted, KeyboardInterrupt)
    names = ("NotFound", "Access", "Network", "Content", "Storage")
    assert all(issubclass(getattr(errors, f"Weights{name}Error"), errors.WeightsError) for name in names)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("resnet5", " Did you mean 'resnet50' or 'resnet18'?"),
        ("RESNET50", " Did you mean 'resnet50' or 'resnet18'?"),
        ("vgg", ""),
    ],
)
def test_did_you_mean(word, text):
    assert did_you_mean(word, ["resnet18", "resnet50", "mobilenetv2_100"]) == text
