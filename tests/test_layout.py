"""The house: every module has its step, imports go down only, and every file has its twin."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STEPS = [
    {"errors", "version", "paths", "address", "processes", "stopping"},
    {"labels", "atomic", "regular_file", "terminal", "interface", "deep_images", "failures", "worker_guard"},
    {"json_object"},
    {"local_cache"},
    {"shard_file"},
    {
        "console",
        "run_records",
        "wording",
        "strict_yaml",
        "safetensors_file",
        "local_file",
        "hub_file",
        "decode",
        "image_folder",
        "sources",
        "loader",
        "canvas",
        "curves",
        "depth",
        "door",
        "boxes",
        "letterbox",
        "postprocess",
        "yolo_nas_blocks",
        "annotations",
        "near_duplicates",
        "frames",
        "web_file",
        "group_hooks",
        "pickle_names",
        "ported_optimizers",
        "settings",
        "licence_terms",
        "detr_library",
        "json_lists",
        "voc_xml",
        "any_case",
        "folding",
        "structure",
        "feature_shards",
        "image_store",
        "memory",
        "sync_norms",
        "chunks",
        "feed",
        "survey_notes",
        "ahead",
        "bad_loss",
        "optimizer_modes",
        "run_lock",
        "checksums",
        "state_file",
    },
    {
        "class_rows",
        "sg_schedule",
        "user_loaders",
        "torch_schedule",
        "weights",
        "preprocess",
        "proof",
        "metrics",
        "progress",
        "pictures",
        "plan_picture",
        "images",
        "assigners",
        "yolo_nas_heads",
        "annotation_files",
        "box_report",
        "boxed_images",
        "box_marks",
        "picture_sources",
        "box_transforms",
        "box_drawing",
        "sg_processing",
        "detection_metrics",
        "feature_key",
        "random_reads",
        "run_stage",
    },
    {"contents"},
    {
        "schedule",
        "registry",
        "data",
        "yolo_nas_network",
        "detection_loss",
        "licence",
        "box_loader",
        "picture_looks",
        "box_table",
        "detection_result",
        "detection_pictures",
        "coco_json",
        "yolo_labels",
        "yolo_yaml",
        "path_ends",
        "web_weights",
        "sg_checkpoint",
        "detr_file",
        "code_digest",
    },
    {"trunk_engine", "single_image", "split_traces"},
    {
        "feature_pass",
        "trunk_speed",
        "coco_classes",
        "coco_files",
        "data_check",
        "box_datasets",
        "split_lists",
        "yolo_pairs",
    },
    {"darknet_data", "voc_places", "coco_pictures"},
    {"yolo_parts"},
    {"rate_spec", "classifier", "model_config", "voc", "coco", "yolo_layout", "detector"},
    {"box_formats"},
    {"box_data", "yolo_nas_detector", "detr_detector", "repository"},
    {"rate_fields", "lr_plan", "models"},
    {"preset", "shares", "freezing", "live_rates", "gradients", "optimizers", "weight_store"},
    {"grouping", "own_groups", "optim", "callbacks", "compat", "weight_folder"},
    {
        "planning",
        "compiling",
        "engine",
        "run_identity",
        "run_state",
        "record_forms",
        "class_match",
        "data_record",
        "run_notes",
    },
    {"features", "loop", "checkpoint"},
    {"feature_cache"},
    {"verdict", "batches", "report", "model_card", "run_start", "run_claim"},
    {"classifying", "detecting", "push_folder"},
    {"tasks", "hub"},
    {"evaluation", "training", "trial"},
    {"recipe"},
    {"__init__"},
]
STEP = {name: step for step, names in enumerate(STEPS) for name in names}
FILES = sorted((ROOT / "zoo").rglob("*.py"))
TWINS = [path for folder in ("zoo", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]


def room(path):
    """The name by which a file stands on the stairs: its own, or `models` for all files in there."""
    parts = path.relative_to(ROOT / "zoo").with_suffix("").parts
    return parts[0]


def imports(path):
    """Yield the rooms that a file imports from, and whether it is only for types."""
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "zoo":
            names = [node.module] if node.module != "zoo" else [f"zoo.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "zoo"]
        for name in names:
            yield [*name.split("."), "__init__"][1]


def test_every_module_has_a_step():
    assert {room(path) for path in FILES} == set(STEP)
    assert sum(map(len, STEPS)) == len(STEP)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    own = room(path)
    if path == ROOT / "zoo" / "__init__.py":
        return
    for other in imports(path):
        is_family = own == "models" and other == "models"
        assert STEP[other] < STEP[own] or is_family, f"{own} (step {STEP[own]}) imports {other} (step {STEP[other]})"


@pytest.mark.parametrize("path", sorted((ROOT / "zoo" / "models").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_a_family_does_not_import_another(path):
    assert "models" not in set(imports(path))


@pytest.mark.parametrize("path", TWINS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_has_a_twin(path):
    place = path.relative_to(ROOT / "zoo") if path.is_relative_to(ROOT / "zoo") else path.relative_to(ROOT)
    name = f"{path.parent.name}_init" if path.name == "__init__.py" else path.stem
    if path == ROOT / "tools" / "__init__.py":
        return
    twin = ROOT / "tests" / place.parent / f"test_{name}.py"
    assert twin.is_file(), f"{path.relative_to(ROOT)} has no {twin.relative_to(ROOT)}"


def test_modules_and_their_functions_do_not_share_names():
    for path in FILES:
        functions = [node.name for node in ast.parse(path.read_text("utf8")).body if isinstance(node, ast.FunctionDef)]
        assert path.stem not in functions
