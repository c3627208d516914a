import copy
import sys

import pytest

from small_detr import SMALL
from zoo.errors import InputError
from zoo.models.families._detr.library import CLASSES, import_transformers

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")


@pytest.mark.parametrize("missing", ["transformers", "scipy", "scipy.optimize"])
def test_a_missing_extra_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"^d_fine needs transformers and scipy.*zoo-finetune\[transformers\]'$"):
        import_transformers("d_fine")


def test_a_library_without_the_family_is_called_old(monkeypatch):
    import transformers

    class Old:
        __version__ = "4.40"

    monkeypatch.setitem(sys.modules, "transformers", Old())
    with pytest.raises(InputError, match=r"^transformers 4\.40 has no rf_detr\. Install a newer one: pip install -U "):
        import_transformers("rf_detr")
    monkeypatch.undo()
    assert import_transformers("rf_detr") is transformers


@pytest.mark.parametrize("name", SMALL)
def test_a_network_has_the_numbers_and_leaves_them_as_they_are(name):
    architecture = SMALL[name]
    before = copy.deepcopy(dict(architecture.settings))
    network = architecture.make_network(7)
    assert architecture.settings == before
    assert network.config.num_labels == 7
    assert network.config.num_queries == before["num_queries"]
    assert type(network).__name__ == CLASSES[architecture.model_type][1]
    second = architecture.second_names
    first = {tensor.data_ptr() for name, tensor in network.state_dict().items() if not name.startswith(second or "-")}
    assert all(t.data_ptr() in first for name, t in network.state_dict().items() if second and name.startswith(second))
