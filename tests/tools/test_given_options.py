import pytest

from tools.cli import main
from tools.given_options import unite_settings
from zoo.errors import InputError

RESUME = ["finetune", "--resume", "runs/x"]
BY_ITSELF = ["--seed 1", "--lr 0.1", "--mode full", "--preset classify-full", "--batch-size 4"]
BY_ITSELF += ["--image-size 32", "--device cpu", "--set optimizer=AdamW", "--weights x", "--no-pretrained"]
BY_ITSELF += ["--skip-bad"]


@pytest.mark.parametrize("option", BY_ITSELF)
def test_a_resumed_run_takes_no_other_option(option, capsys):
    assert main([*RESUME, *option.split()]) == 2
    assert capsys.readouterr().err == (
        f"error: {option.split()[0]} has no effect with --resume: the run goes on with its own settings, "
        "those in runs/x/preset.yaml. Leave it out.\n"
    )
    assert main([*RESUME, "-o", "runs/y"]) == 2
    assert "--out has no effect with --resume alone" in capsys.readouterr().err


def test_a_resumed_run_takes_no_model_and_names_all_options(capsys):
    assert main([*RESUME, "resnet50", "data"]) == 2
    assert "takes the data at most, got resnet50 data" in capsys.readouterr().err
    assert main([*RESUME, "data", "--epochs", "8", "--lr", "0.5", "--set", "seed=1"]) == 2
    assert "error: --lr and --set have no effect with --resume" in capsys.readouterr().err
    assert unite_settings([("lr", 0.1)], {"seed": 0, "epochs": None}) == {"lr": 0.1, "seed": 0}
    with pytest.raises(InputError, match="lr is given twice"):
        unite_settings([("lr", 0.1)], {"lr": 0.1})


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("finetune resnet18 d --weights x --no-pretrained", "--no-pretrained has no effect beside --weights"),
        ("plan resnet18 --no-picture -o x.png", "--plot has no effect beside --no-picture"),
        ("preset show --fields --full", "--full has no effect without the name of a preset"),
        ("preset export resnet18 --force", "--force has no effect where no file is written"),
        ("preset import-sg recipe.yaml --force", "--force has no effect where no file is written"),
        ("finetune resnet18 d --lr 0.1 --set lr=0.2", "lr is given twice"),
        ("finetune resnet18 d --no-pretrained --set pretrained=true", "pretrained is given twice"),
        ("finetune resnet18 d --batch-size auto --set micro_batch_size=2", "micro_batch_size is given twice"),
        ("finetune resnet18 d --set seed=1 --set seed=2", "--set gives seed twice"),
        ("finetune resnet18 d --set model=resnet50", "model is given twice"),
        ("plan resnet18 --set model=resnet50", "model is given twice"),
        ("plan resnet18 --mode full --set mode=head", "mode is given twice"),
        ("preset export resnet18 --set seed=1 --set seed=2", "--set gives seed twice"),
    ],
)
def test_what_contradicts_itself_is_refused(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv.split()) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
