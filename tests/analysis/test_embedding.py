import pytest
import torch

import zoo
from zoo.analysis import embed_splits
from zoo.errors import InputError
from zoo.progress import Progress
from zoo.settings import Preset

TINY = Preset(batch_size=6, image_size=32, num_workers=0, device="cpu", cache="disk")


def test_vectors_are_what_the_head_is_shown_and_a_run_finds_them_in_the_cache(images, tmp_path, capsys):
    model, data = zoo.get("timm/test_resnet", num_classes=3, seed=3), zoo.open_data(images)
    splits = embed_splits(model, data, TINY, Progress(enabled=False))
    val = splits["val"]
    assert val.names == tuple(data.val.names)
    assert val.labels.tolist() == list(data.val.targets)
    with torch.no_grad():
        expected = model.get_head()(val.vectors).softmax(-1).max(-1).values
    answers = model.predict([data.val.read(index)[0] for index in range(len(val))])
    assert [answer.probability for answer in answers] == pytest.approx(expected.tolist(), abs=1e-4)
    again = zoo.get("timm/test_resnet", num_classes=3, seed=3)
    run = zoo.finetune(again, images, out=tmp_path / "run", preset=TINY.replace(epochs=1), progress=False)
    shown = run.embed([data.val.read(index)[0] for index in range(len(val))], batch_size=4)
    assert torch.allclose(shown, val.vectors, atol=1e-4)
    assert splits["train"].key
    assert splits["train"].key in (run.folder / "features.json").read_text()


def test_loaders_are_refused():
    loader = torch.utils.data.DataLoader([(torch.zeros(3, 32, 32), number % 3) for number in range(6)], 3)
    data = zoo.open_data((loader, loader), classes=["a", "b", "c"])
    with pytest.raises(InputError, match="data are loaders"):
        embed_splits(zoo.get("timm/test_resnet", num_classes=3), data, TINY, Progress(enabled=False))
