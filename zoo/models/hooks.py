"""Hooks by which a model may choose its own groups of parameters, and their rates at every step."""

from collections.abc import Mapping
from typing import Any

from zoo._model import ModelInterface


class GroupHooks(ModelInterface):
    """For modules with `get_finetune_lr_dict`; override what should be otherwise."""

    def initialize_param_groups(self: Any, lr: float, training_params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the groups to train, as the preset's `mode` says; override it to choose your own.

        Called once, before the optimizer is made, when `lr` is one number and no mode was asked for.

        Args:
            lr: The preset's rate.
            training_params: The preset's fields and your own, readable as `p["x"]` and `p.x`.

        Returns:
            Dictionaries with `named_params` (pairs of name and parameter), `lr` and, if wanted, `name`,
            `weight_decay` and options of the optimizer. What is in no group is frozen.
        """
        rates = self.get_finetune_lr_dict(lr)
        return [
            {"name": key, "lr": rate, "named_params": [(n, p) for n, p in self.named_parameters() if n.startswith(key)]}
            for key, rate in rates.items()
            if rate > 0
        ]

    def update_param_groups(
        self,
        param_groups: list[dict[str, Any]],
        lr: float,
        epoch: int,
        iter: int,
        training_params: Mapping[str, Any],
        total_batch: int,
    ) -> list[dict[str, Any]]:
        """Return the optimizer's groups for the next step; override it to set rates of your own.

        Called before every optimizer step, after the schedule has multiplied each group's own rate. As it stands it
        leaves that as it is.

        Args:
            param_groups: The optimizer's groups, each with `name`, `lr` and `initial_lr`.
            lr: The preset's rate times the schedule.
            epoch: From 0.
            iter: Batch in the epoch, from 0.
            training_params: As in `initialize_param_groups`.
            total_batch: Batches per epoch.
        """
        return param_groups
