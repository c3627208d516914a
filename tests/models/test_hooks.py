from torch import nn

from zoo.models.hooks import GroupHooks


class Net(GroupHooks, nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(2, 3), nn.Linear(3, 1)

    def get_finetune_lr_dict(self, lr):
        return {"head": lr, "default": 0.0}


def test_the_groups_are_those_of_the_models_own_rates_and_stay_as_scheduled():
    model = Net()
    (group,) = model.initialize_param_groups(0.5, {})
    assert (group["name"], group["lr"]) == ("head", 0.5)
    assert [name for name, _ in group["named_params"]] == ["head.weight", "head.bias"]
    assert all(parameter is dict(model.named_parameters())[name] for name, parameter in group["named_params"])
    groups = [{"name": "head", "lr": 0.1, "initial_lr": 0.5}]
    assert Net().update_param_groups(groups, 0.1, 0, 0, {}, 10) is groups
    assert groups == [{"name": "head", "lr": 0.1, "initial_lr": 0.5}]
