import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from small_run import DATA, EVALUATION, PLAN, PROOF, TINY
from zoo.data.letterbox import Letterbox
from zoo.data.transforms import Preprocess
from zoo.exporters._card import Trained, write_card
from zoo.models.catalog import find_entry
from zoo.models.config import ModelConfig
from zoo.settings.preset import Preset
from zoo.weights.spec import IMAGENET_CAVEAT

PARENT = "timm/resnet18.a1_in1k"
WEIGHTS = {"weights": f"https://huggingface.co/{PARENT}", "revision": "1" * 40, "sha256": "2" * 64}
CONFIG = {
    "model": TINY,
    "num_classes": 2,
    "classes": ["ant", "bee"],
    "preprocess": Preprocess(image_size=64).to_dict(),
    "zoo": "0.9.0",
}
DETECTOR = {"model": "yolo_nas_s", "task": "detection", "preprocess": Letterbox().to_dict()}
BOXES = {
    "map": 0.5,
    "map50": 0.75,
    "images": 4,
    "per_class": [{"class": "ant", "boxes": 3, "ap": None, "ap50": 0.5, "recall": 1.0}],
}


def trained(config: dict[str, Any] | None = None, **facts: Any) -> Trained:
    made = ModelConfig(**(CONFIG | (config or {})))
    whole: dict[str, Any] = {"plan": PLAN, "proof": PROOF, "data": DATA, "evaluation": EVALUATION, "preset": Preset()}
    return Trained(repo="org/garden", config=made, entry=find_entry(made.model or ""), **(whole | facts))


def metadata(card: str) -> dict[str, Any]:
    head = card.split("---\n")[1]
    found = yaml.safe_load(head)
    assert isinstance(found, dict)
    ModelCard(card)  # the Hub's client reads it, too
    return found


def section(card: str, title: str) -> list[str]:
    (part,) = (part for part in card.split("\n## ") if part.startswith(title))
    return part.strip().splitlines()


def test_the_metadata_of_a_classifier() -> None:
    card = write_card(trained({"licence": "Apache-2.0", "origin": WEIGHTS}, parents=(PARENT,)))
    scores = [{"type": "accuracy", "value": 0.75, "name": "top-1 accuracy"}]
    assert metadata(card) == {
        "base_model": [PARENT],
        "base_model_relation": "finetune",
        "datasets": ["garden"],
        "library_name": "zoo-finetune",
        "license": "apache-2.0",
        "metrics": ["accuracy"],
        "pipeline_tag": "image-classification",
        "tags": ["zoo", "classification", "timm-test_resnet"],
        "model-index": [
            {
                "name": "garden",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": "garden", "type": "garden", "split": "validation"},
                        "metrics": scores,
                    }
                ],
            }
        ],
    }


def test_the_metadata_of_a_detector_and_of_a_model_alone() -> None:
    found = metadata(write_card(trained(DETECTOR, evaluation=BOXES)))
    assert found["pipeline_tag"] == "object-detection"
    metrics = found["model-index"][0]["results"][0]["metrics"]
    assert [(metric["name"], metric["value"]) for metric in metrics] == [("mAP@[.5:.95]", 0.5), ("mAP@.5", 0.75)]
    nothing: dict[str, Any] = {"plan": {}, "proof": {}, "data": {}, "evaluation": {}, "preset": None}
    found = metadata(write_card(trained(**nothing)))
    assert found.keys() == {"library_name", "pipeline_tag", "tags"}
    names = [str(number) for number in range(6)]
    card = write_card(trained({"num_classes": 6, "classes": names}))
    metrics = metadata(card)["model-index"][0]["results"][0]["metrics"]
    assert [metric["name"] for metric in metrics] == ["top-1 accuracy", "top-5 accuracy"]


@pytest.mark.parametrize(
    ("licence", "facts"),
    [
        (None, {}),
        ("unknown", {}),
        ("MIT", {"license": "mit"}),
        ("licenseref-garden", {"license": "other", "license_name": "licenseref-garden"}),
    ],
)
def test_licences_as_the_hub_has_them(licence: str | None, facts: dict[str, str]) -> None:
    found = metadata(write_card(trained({"licence": licence})))
    assert {key: value for key, value in found.items() if key.startswith("license")} == facts


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/home/somebody/garden", "garden"),
        ("/home/somebody/my garden/", "my garden"),
        ("C:\\plots\\garden", "garden"),
        ("a pair of Dataset", None),
        ("/", None),
        ("/data/`rm`", None),
        (None, None),
    ],
)
def test_the_data_has_the_last_part_of_its_path_as_its_name(source: str | None, name: str | None) -> None:
    assert trained(data=DATA | {"source": source}).dataset == name


def test_what_it_is_and_how_it_is_used() -> None:
    card = write_card(trained({"origin": WEIGHTS}, parents=(PARENT,)))
    assert "# garden\n\n`timm/test_resnet`, a classifier of 2 classes, fine-tuned on garden with zoo 0.9.0." in card
    assert "Classes: ant, bee." in card
    assert "trained from random weights on garden" in write_card(trained())
    lines = section(write_card(trained()), "Use it")
    assert 'model = zoo.get("org/garden")  # or "org/garden@<commit>", which never changes' in lines
    assert "zoo finetune timm/test_resnet path/to/images --weights org/garden  # fine-tune it further" in lines
    assert not any("import the module" in line for line in lines)
    lines = section(write_card(trained(pictures=("pictures/curves.png", "pictures/other.png"))), "Plots")
    assert lines[2::2] == ["![Loss and scores over the epochs](pictures/curves.png)", "![other](pictures/other.png)"]


def test_scores() -> None:
    lines = section(write_card(trained()), "Scores on 8 validation images")
    assert "| top-1 accuracy | 75.00% |" in lines
    assert "| class | images | precision | recall | F1 |" in lines
    assert "| bee | 4 | - | 100.0% | 80.0% |" in lines
    lines = section(write_card(trained(DETECTOR, evaluation=BOXES)), "Scores on 4 validation images")
    assert "| class | boxes | AR@100 | AP@[.5:.95] | AP@.5 |" in lines
    assert "| ant | 3 | 100.0% | - | 50.0% |" in lines
    for key in ("recall", "ar100"):  # older files have the former
        scores = BOXES | {"per_class": [{"class": "ant", "boxes": 3, "ap": None, "ap50": 0.5, key: 1.0}]}
        card = write_card(trained(DETECTOR, evaluation=scores))
        assert "| class | boxes | AR@100 | AP@[.5:.95] | AP@.5 |" in card
        assert "| ant | 3 | 100.0% | - | 50.0% |" in card
    data = {"source": "/x/cells", "counts": {"train": {"RBC": 2381}}, "images": {"train": 205}}
    lines = section(write_card(trained(data=data)), "How it was trained")
    assert [line for line in lines if line.startswith(("| boxes", "| RBC", "| images"))] == [
        "| boxes | train |",
        "| RBC | 2,381 |",
        "| images | 205 |",
    ]


def test_how_it_was_trained() -> None:
    preset = Preset(epochs=7, batch_size=3, optimizer="SGD", seed=5)
    lines = section(write_card(trained(preset=preset)), "How it was trained")
    assert "| images | train | val |" in lines
    assert "| bee | 12 | 4 |" in lines
    assert "| all classes | 22 | 8 |" in lines
    assert "| `default` | 370,000 | frozen |" in lines
    assert "| `fc` | 130 | 0.005, from epoch 1 |" in lines, "both halves, at the rate times its factor"
    assert any(line.startswith("7 epochs in batches of 3, optimizer SGD, schedule cosine, seed 5.") for line in lines)
    assert lines[-1] == (
        "370,000 of 370,130 parameters were frozen: 90 tensors had identical checksums at 2 checks, the last "
        "one in the saved file."
    )
    free = {"groups": [{"name": "default", "lr": 0.1, "frozen": False, "parameters": 5}]}
    assert section(write_card(trained(plan=free)), "How it was trained")[-1] == "Nothing was frozen."


def test_origin_and_licence_in_words() -> None:
    lines = section(
        write_card(trained({"model": "resnet18", "licence": "apache-2.0", "origin": WEIGHTS}, parents=(PARENT,))),
        "Origin and licence",
    )
    assert lines[2:] == [
        f"- Fine-tuned from https://huggingface.co/{PARENT}, commit `{'1' * 40}`, SHA-256 `{'2' * 64}`.",
        "- Licence of the weights, inherited from the pretrained weights: Apache License 2.0 "
        "(https://www.apache.org/licenses/LICENSE-2.0). Use, modification and redistribution allowed, also "
        "commercially; include the licence text and copyright notices.",
        "- Licence of the code of `resnet18`: Apache-2.0.",
        f"- T{IMAGENET_CAVEAT[1:]}.",
    ]
    lines = section(write_card(trained({"model": "resnet18"})), "Origin and licence")
    assert lines[2:] == [
        "- Licence of the weights: not chosen: the model was trained from random weights.",
        "- Licence of the code of `resnet18`: Apache-2.0.",
    ]


def test_what_a_configuration_says_of_its_origin_is_text_and_nothing_else() -> None:
    origin = {"weights": "[x](javascript:y)", "revision": "`z`", "sha256": "2" * 64}
    (line,) = (line for line in write_card(trained({"origin": origin})).splitlines() if line.startswith("- Fine-tuned"))
    assert line == rf"- Fine-tuned from \[x\](javascript:y), SHA-256 `{'2' * 64}`."


@pytest.mark.parametrize("value", [float("nan"), -1.0, 75.0, "0.5", True])
def test_scores_that_are_none_are_left_out(value: object) -> None:
    card = write_card(trained(evaluation={"top1": value}))
    assert "## Scores" not in card
    assert "model-index" not in metadata(card)


@pytest.mark.parametrize(
    ("preprocess", "text"),
    [
        (Preprocess(image_size=64), "resized to 64 × 64 pixels, RGB."),
        (Letterbox(channels="bgr"), "fitted into 640 × 640 pixels, BGR."),
        (Letterbox(content_size=(640, 640), keep_ratio=False), "stretched to 640 × 640 pixels, RGB."),
    ],
)
def test_what_it_takes(preprocess: Preprocess | Letterbox, text: str) -> None:
    assert text in section(write_card(trained({"preprocess": preprocess.to_dict()})), "Input")[2]


def test_names_of_classes_stay_names_and_many_are_cut_short() -> None:
    names = ["a|b", "<script>", "[x](http://y)", "two\nlines", "*stars*"]
    rows = [{"class": name, "images": 1} for name in names]
    data = DATA | {"counts": {"train": dict.fromkeys(names, 1)}}
    config = {"num_classes": 5, "classes": names}
    card = write_card(trained(config, evaluation=EVALUATION | {"per_class": rows}, data=data))
    assert "| a\\|b | 1 |" in card
    assert not re.search(r"(?<!\\)<script", card)
    assert "(http://y)" not in card.replace(r"\[x\](http://y)", "")
    assert "two lines" in card
    assert metadata(card)["model-index"]
    names = [f"kind {number}" for number in range(60)]
    card = write_card(trained({"num_classes": 60, "classes": names}))
    assert "kind 49, …." in card
    assert "kind 50" not in card


# ---- names that somebody else has chosen

HOSTILE = "\x1b]0;title\x07\n# fake\u202e `x` | \x9b31m"


def test_names_steer_no_terminal_and_make_no_lines() -> None:
    preset = Preset(optimizer=HOSTILE, schedule="cosine")
    plan = {"groups": [{"name": HOSTILE, "lr": 0.1, "parameters": 5}]}
    data = {"source": f"/a/{HOSTILE}", "counts": {"train": {HOSTILE: 1, "bee": 2}}}
    rows = [{"class": HOSTILE, "images": 4, "precision": 1.0, "recall": 0.5, "f1": 0.6667}]
    config = {"classes": [HOSTILE, "bee"], "licence": HOSTILE, "task": HOSTILE, "zoo": HOSTILE}
    facts: dict[str, Any] = {
        "preset": preset,
        "plan": plan,
        "data": data,
        "evaluation": EVALUATION | {"per_class": rows},
    }
    card = write_card(trained(config | {"origin": {"weights": HOSTILE}}, **facts))
    assert not [letter for letter in card if not (letter.isprintable() or letter == "\n")]
    assert not [line for line in card.splitlines() if line.startswith("# fake")]
    assert metadata(card)["tags"][1] == "classification", "what the registry says"
