"""The other libraries that train a classifier; each is imported by its own contender alone.

Each is used as its own documentation shows it, with progress bars, logs and checkpoints turned off.
"""

import tempfile
from typing import Any

from _image_job import MEAN, MOMENTUM, STD, Job, find_head, freeze, open_folder, resize_and_crop
from _measure import Watch


def by_fastai(job: Job, network: Any, watch: Watch) -> float:
    """Train with a `Learner` whose first parameter group is frozen."""
    from functools import partial

    import torch
    from fastai.vision import all as fastai

    head = find_head(network)

    class Ticks(fastai.Callback):
        def after_batch(self) -> None:
            if self.training:
                watch.step()

        def after_epoch(self) -> None:
            watch.epoch()

    class ResizeAndCrop(fastai.Transform):
        def encodes(self, image: fastai.PILImage) -> Any:
            return resize_and_crop(image, job.size)

    def split(model: Any) -> list[list[Any]]:
        parts: list[list[Any]] = [[], []]
        for name, parameter in model.named_parameters():
            parts[name.startswith(f"{head}.")].append(parameter)
        return parts

    loaders = fastai.ImageDataLoaders.from_folder(
        job.data,
        train="train",
        valid="val",
        item_tfms=ResizeAndCrop(),
        batch_tfms=fastai.Normalize.from_stats(MEAN, STD),
        bs=job.batch,
        num_workers=job.workers,
        device=torch.device(job.device),
        drop_last=False,
    )
    learner = fastai.Learner(
        loaders,
        network,
        loss_func=torch.nn.CrossEntropyLoss(),
        opt_func=partial(fastai.OptimWrapper, opt=torch.optim.SGD, momentum=MOMENTUM),
        splitter=split,
        metrics=fastai.accuracy,
        train_bn=not job.frozen,
        cbs=[Ticks()],
    )
    if job.frozen:
        learner.freeze()
    if job.precision == "bf16":
        learner = learner.to_bf16()
    with learner.no_bar(), learner.no_logging():
        learner.fit(job.epochs, job.lr)
    watch.scores = [float(values[-1]) for values in learner.recorder.values]
    return float(watch.scores[-1] or 0.0)


def by_lightning(job: Job, network: Any, watch: Watch) -> float:
    """Train with a `LightningModule`, whose backbone `BaseFinetuning` freezes."""
    import lightning
    import torch
    from lightning.pytorch.callbacks import BaseFinetuning
    from torch.utils.data import DataLoader

    head = find_head(network)

    class Freeze(BaseFinetuning):
        def freeze_before_training(self, pl_module: Any) -> None:
            self.freeze([part for name, part in pl_module.network.named_children() if name != head], train_bn=False)

        def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
            pass

    class Ticks(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            watch.step()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            watch.epoch(pl_module.right / pl_module.seen)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.right, self.seen = network, 0, 0

        def training_step(self, batch: Any, index: int) -> Any:
            images, targets = batch
            return torch.nn.functional.cross_entropy(self.network(images), targets)

        def on_validation_epoch_start(self) -> None:
            self.right = self.seen = 0

        def validation_step(self, batch: Any, index: int) -> None:
            images, targets = batch
            self.right += int((self.network(images).argmax(1) == targets).sum())
            self.seen += len(targets)

        def configure_optimizers(self) -> Any:
            learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
            return torch.optim.SGD(learning, lr=job.lr, momentum=MOMENTUM)

    options = {"batch_size": job.batch, "num_workers": job.workers, "pin_memory": job.device == "cuda"}
    module = Module()
    trainer = lightning.Trainer(
        max_epochs=job.epochs,
        accelerator="gpu" if job.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if job.precision == "bf16" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[Ticks(), *([Freeze()] if job.frozen else [])],
    )
    trainer.fit(
        module,
        DataLoader(open_folder(job.data, "train", job.size), shuffle=True, **options),
        DataLoader(open_folder(job.data, "val", job.size), **options),
    )
    return module.right / module.seen


def by_transformers(job: Job, network: Any, watch: Watch) -> float:
    """Train with the `Trainer`, which takes any module that returns its loss."""
    import torch
    import transformers

    class Ticks(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.step()

        def on_evaluate(self, *_: Any, metrics: Any, **__: Any) -> None:
            watch.epoch(metrics["eval_top1"])

    class WithLoss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Any, labels: Any) -> dict[str, Any]:
            logits = self.network(images)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    def collate(rows: Any) -> dict[str, Any]:
        return {
            "images": torch.stack([image for image, _ in rows]),
            "labels": torch.tensor([label for _, label in rows]),
        }

    learning = freeze(job, network)
    optimizer = torch.optim.SGD(learning, lr=job.lr, momentum=MOMENTUM)
    with tempfile.TemporaryDirectory() as out:
        arguments = transformers.TrainingArguments(
            output_dir=out,
            num_train_epochs=job.epochs,
            per_device_train_batch_size=job.batch,
            per_device_eval_batch_size=job.batch,
            dataloader_num_workers=job.workers,
            dataloader_pin_memory=job.device == "cuda",
            max_grad_norm=0.0,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=job.device == "cpu",
            bf16=job.precision == "bf16",
            remove_unused_columns=False,
            label_names=["labels"],
        )
        trainer = transformers.Trainer(
            WithLoss(),
            arguments,
            data_collator=collate,
            train_dataset=open_folder(job.data, "train", job.size),
            eval_dataset=open_folder(job.data, "val", job.size),
            compute_metrics=lambda found: {"top1": float((found.predictions.argmax(1) == found.label_ids).mean())},
            callbacks=[Ticks()],
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
        )
        trainer.train()
        scores = [record["eval_top1"] for record in trainer.state.log_history if "eval_top1" in record]
        return float(scores[-1])
