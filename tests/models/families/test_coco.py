from zoo.models.families._coco import COCO_CATEGORIES, COCO_CLASSES


def test_classes_and_category_numbers_belong_together():
    assert len(set(COCO_CATEGORIES)) == len(COCO_CLASSES) == 80
    numbers = dict(zip(COCO_CLASSES, COCO_CATEGORIES, strict=True))
    expected = {"person": 1, "fire hydrant": 11, "stop sign": 13, "backpack": 27, "toilet": 70, "toothbrush": 90}
    assert {name: numbers[name] for name in expected} == expected
    assert list(COCO_CATEGORIES) == sorted(COCO_CATEGORIES)
