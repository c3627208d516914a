from zoo.tasks.detection.annotations import Key
from zoo.tasks.detection.formats._files import Findings
from zoo.tasks.detection.formats.coco.classes import CocoClasses, resolve_classes
from zoo.tasks.detection.formats.coco.json import CocoBox, CocoCategory, CocoJson


def content(categories: dict[Key, str], *used: Key, above: dict[Key, str] | None = None) -> CocoJson:
    above = above or {}
    return CocoJson(
        boxes=[CocoBox(1, key, (0, 0, 1, 1), False, 1, "annotation 1") for key in used],
        categories={key: CocoCategory(name, above.get(key, ""), 7) for key, name in categories.items()},
    )


def resolve(*files: CocoJson) -> tuple[CocoClasses, list[tuple[str, str, str]]]:
    findings = Findings()
    found = resolve_classes([(file, findings.at(file=f"{n}.json")) for n, file in enumerate(files)], findings)
    return found, [(finding.level, finding.place, finding.text) for finding in findings.found]


def test_ids_that_all_files_share_are_the_keys_in_their_order() -> None:
    classes, told = resolve(content({7: "dog", 3: "cat"}, 7), content({3: "cat", 9: "cow"}))
    assert list(classes.names.items()) == [(3, "cat"), (7, "dog"), (9, "cow")]
    assert classes.keys == ({3: 3, 7: 7}, {3: 3, 9: 9})
    assert told == [
        ("note", "", "category ids are 3 to 9, of which 4 are missing; they become class numbers 0 to 2, in order")
    ]
    assert resolve(content({0: "cat", 1: "dog"}))[1] == []


def test_ids_that_differ_are_resolved_by_name_in_the_order_of_the_first_file() -> None:
    classes, told = resolve(content({12: "cat", 11: "dog"}), content({1: "cat", 0: "cow", 2: "dog"}))
    assert list(classes.names.items()) == [("dog", "dog"), ("cat", "cat"), ("cow", "cow")]
    assert classes.keys == ({11: "dog", 12: "cat"}, {0: "cow", 1: "cat", 2: "dog"})
    start = "category ids differ between the files, so classes are matched by name: "
    assert told == [
        ("note", "", f"{start}'dog' is 11 in 0.json and 2 in 1.json; 'cat' is 12 in 0.json and 1 in 1.json")
    ]
    _, told = resolve(content({1: "cat"}), content({1: "cow"}))
    assert told == [("note", "", f"{start}1 is 'cat' in 0.json and 'cow' in 1.json")]


def test_ids_of_one_name_are_one_class_and_of_two_names_none() -> None:
    classes, told = resolve(content({2: "cat", 3: "cat", 5: "dog"}, 2, 3))
    assert classes.names == {2: "cat", 5: "dog"}
    assert classes.keys == ({2: 2, 3: 2, 5: 5},)
    assert told[0] == ("warning", "0.json:7", "categories 2 and 3 are both called 'cat'; they are treated as one class")
    file = content({1: "cat", 2: "dog"}, 1, 2)
    file.unclear_categories.add(2)
    assert resolve(file)[0] == CocoClasses({1: "cat"}, ({1: 1},))
    classes, told = resolve(content({0: "cat", 1: "Cat"}))
    assert classes.names == {0: "cat", 1: "Cat"}
    assert [text for _, _, text in told] == [
        "'cat' and 'Cat' differ only by case or spaces; they are treated as two classes"
    ]


def test_categories_that_group_others_are_no_classes() -> None:
    categories: dict[Key, str] = {0: "cells", 1: "RBC", 2: "WBC"}
    above: dict[Key, str] = {0: "none", 1: "cells", 2: "cells"}
    classes, told = resolve(content(categories, 1, above=above), content(categories, above=above))
    assert classes.names == {1: "RBC", 2: "WBC"}
    assert classes.keys == ({1: 1, 2: 2},) * 2
    assert told[0] == (
        "note",
        "",
        "category 'cells' only groups others and has no boxes; it is not used as a class",
    )
    used = resolve(content(categories, 1, above=above), content(categories, 0, above=above))[0]
    assert list(used.names) == [0, 1, 2]
    categories: dict[Key, str] = {1: "person", 2: "rider"}
    for above in ({1: "person"}, {1: "person", 2: "person"}):
        for used in ((), (1,), (2,)):
            assert list(resolve(content(categories, *used, above=above))[0].names) == [1, 2]


def test_without_categories_there_are_no_class_numbers() -> None:
    classes, told = resolve(content({}, 3, "b10", "b9"), content({}, 11))
    assert list(classes.names.items()) == [("3", "3"), ("11", "11"), ("b9", "b9"), ("b10", "b10")]
    assert classes.keys[0][3] == "3"
    assert told == [("warning", "", "there are no categories; classes are named by their ids, 3 to 'b10'")]
    classes, _ = resolve(content({1: "cat"}, 1), content({}, 1))
    assert classes.names == {1: "cat"}
    assert classes.keys == ({1: 1}, {})
