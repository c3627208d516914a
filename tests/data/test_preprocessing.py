import pytest

from zoo.data.letterbox import Letterbox
from zoo.data.preprocessing import Preprocessing, read_preprocessing
from zoo.data.transforms import Preprocess

MADE = [(Preprocess(image_size=64, crop_pct=0.5), 128), (Letterbox(content_size=(600, 500)), 600)]


@pytest.mark.parametrize(("made", "side"), MADE, ids=["crop", "letterbox"])
def test_every_kind_is_read_back_from_its_values(made, side):
    assert isinstance(made, Preprocessing)
    assert read_preprocessing(made.to_dict()) == made
    assert made.resized_side == side


def test_values_of_old_files_mean_that_all_is_decoded():
    for made, _ in MADE:
        assert made.need is None
        assert "decode" not in made.to_dict()
        assert read_preprocessing(made.replace(decode="fast").to_dict()).need is not None


def test_values_of_old_files_name_no_kind():
    assert "kind" not in Preprocess().to_dict()
    assert read_preprocessing(Preprocess().to_dict()) == Preprocess()
