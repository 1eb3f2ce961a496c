"""Where the value of every field of the package's configuration classes comes from. Nothing here imports torch.

A field is set from the model's spec (SPEC), may be set by `args` (ARGS), or is pinned (PINNED). A test compares the
three lists with the fields of the installed package, so a new version cannot add a field that nobody has looked at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# Of the spec, or of the run itself.
SPEC = {
    "lr": "optimizer.lr",
    "warmup_epochs": "optimizer.warmup",
    "optimizer": "optimizer.name",
    "lr_scheduler": "optimizer.schedule",
    "epochs": "epochs",
    "batch_size": "batch.step",
    "grad_accum_steps": "batch.effective divided by batch.step",
    "amp_dtype": "precision",
    "early_stopping": "earlyStopping.patience is above 0",
    "early_stopping_patience": "earlyStopping.patience",
    "seed": "the run's seed",
    "dataset_dir": "the run's dataset",
    "output_dir": "the run's output folder",
    "class_names": "the model's classes",
    "notes": "the run's key",
    "resolution": "resolution",
    "num_classes": "the model's classes",
    "pretrain_weights": "from",
}


class Arg(NamedTuple):
    """A field that `args` may set."""

    about: str
    rules: dict[str, Any] = {}  # JSON Schema's, beside those of the package's own class


_POSITIVE, _WHOLE, _SHARE = {"exclusiveMinimum": 0}, {"minimum": 1}, {"minimum": 0, "maximum": 1}
_FRACTION = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}


def _members(**rules: dict[str, Any]) -> dict[str, Any]:
    """The rules of an object whose members are known. The package's class takes any, and torch refuses them late."""
    return {"additionalProperties": False, "properties": rules}


ARGS = {
    # TrainConfig
    "lr_encoder": Arg("Learning rate of the backbone.", _POSITIVE),
    "lr_vit_layer_decay": Arg("Factor of the learning rate from each layer of the backbone to the one below.", _SHARE),
    "lr_component_decay": Arg("Factor of the learning rate from each component to the one before.", _SHARE),
    "lr_scheduler_kwargs": Arg(
        "Arguments of the schedule: min_factor, where the cosine ends as a share of lr.", _members(min_factor=_FRACTION)
    ),
    "optimizer_kwargs": Arg(
        "More arguments of torch's AdamW.",
        _members(
            betas={"type": "array", "items": _FRACTION, "minItems": 2, "maxItems": 2},
            eps={"type": "number", **_POSITIVE},
            amsgrad={"type": "boolean"},
        ),
    ),
    "weight_decay": Arg("AdamW's weight decay.", {"minimum": 0}),
    "clip_max_norm": Arg("Longest gradient; 0 does not shorten any."),
    "drop_path": Arg("Chance that a layer of the backbone is left out in a step.", _SHARE),
    "cls_loss_coef": Arg("Weight of the classification loss.", _POSITIVE),
    "use_ema": Arg("Keep a moving average of the weights, and validate and export it."),
    "ema_decay": Arg("Decay of that average.", _SHARE),
    "ema_tau": Arg("Steps over which the decay rises to its value.", {"minimum": 0}),
    "ema_update_interval": Arg("Steps between two updates of that average.", _WHOLE),
    "skip_best_epochs": Arg("First epochs that cannot be the best one and do not count for early stopping."),
    "early_stopping_min_delta": Arg("Least gain in mAP that counts for early stopping.", {"minimum": 0}),
    "multi_scale": Arg("Train on random sizes around resolution: one for each batch, one for each image, or none."),
    "expanded_scales": Arg("A wider range of these sizes."),
    "scale_jitter": Arg("Cut random parts out of training images."),
    "eval_batch_size": Arg(
        "Images per forward pass in validation; batch.step without it.", {**_WHOLE, "maximum": 4096}
    ),
    "eval_backend": Arg("The program that computes mAP in training. All give the same figures."),
    "log_per_class_metrics": Arg("Log the figures of each class too, where W&B is on."),
    "num_workers": Arg(
        "Processes that load images; 0 loads them in the training process.", {"minimum": 0, "maximum": 64}
    ),
    "prefetch_factor": Arg("Batches that each of these processes loads ahead.", {**_WHOLE, "maximum": 64}),
    "pad_targets_to": Arg(
        "Pad the objects of each image to this number, for compilers of fixed shapes.", {**_WHOLE, "maximum": 10_000}
    ),
    "wandb": Arg("Log to Weights & Biases: to its server if the trainer has WANDB_API_KEY, else to files."),
    "project": Arg("The project at Weights & Biases.", {"minLength": 1, "maxLength": 128}),
    "run": Arg("The run's name at Weights & Biases.", {"minLength": 1, "maxLength": 128}),
    # ModelConfig
    "dec_layers": Arg("Layers of the decoder.", {"minimum": 1, "maximum": 12}),
    "num_queries": Arg("Most objects that the model looks for in an image.", {"minimum": 1, "maximum": 10_000}),
    "num_select": Arg("Most detections that the model reports for an image.", {"minimum": 1, "maximum": 10_000}),
    "group_detr": Arg("Groups of queries that are trained side by side.", {"minimum": 1, "maximum": 64}),
    "ia_bce_loss": Arg("Let the quality of a box weigh its classification loss."),
    "freeze_encoder": Arg("Do not train the backbone."),
    "gradient_checkpointing": Arg("Compute activations twice, to need less memory."),
    "compile": Arg("Compile the model before training (CUDA only)."),
    "cuda_graphs": Arg("Replay training steps as CUDA graphs (CUDA only)."),
    "fused_optimizer": Arg("One kernel for all weights of a step (CUDA only)."),
}

_DETECTION = "this trainer makes detectors of boxes"
_SIZE = "it belongs to the architecture, which the spec names"
_ONE = "a run uses one device"
_DEVICE = "the machine decides: CUDA where there is a GPU, else the CPU"
_OTHERS = "AOB measures and tracks runs itself; W&B is on with wandb: true"
_PACKAGE = "left as the package has it, because nothing in a spec depends on it"

# name: (value, why). PACKAGE stands for the default of the package's class.
PACKAGE = object()
PINNED: dict[str, tuple[Any, str]] = {
    # TrainConfig
    "dataset_file": ("roboflow", "AOB's prepared dataset has this layout"),
    "square_resize_div_64": (True, "images are stretched to a square, as the exported model takes them"),
    "aug_config": (None, "its augmentations are those of Albumentations, which the lock file does not have"),
    "augmentation_backend": ("torchvision", "the default picks whatever is installed"),
    "eval_max_dets": (100, "as in AOB's own evaluation; the package's 500 gives other figures"),
    "best_model_metric": ("map", "the best epoch is that with the highest mAP@[.50:.95]"),
    "smooth_alpha": (0.0, "the best epoch is that with the highest mAP itself, without smoothing"),
    "early_stopping_use_ema": (False, "validation is of the averaged weights already"),
    "eval_interval": (1, "the run contract wants the mAP of each epoch"),
    "eval_base_model": (False, "only the weights that are exported are validated"),
    "eval_ema_only": (False, "the package no longer uses it"),
    "fp16_eval": (False, "the package no longer uses it"),
    "resume": (None, "this trainer resumes from its own checkpoint"),
    "checkpoint_interval": (10, "this trainer writes its own checkpoint after each epoch"),
    "dont_save_weights": (False, "this trainer writes its own checkpoint after each epoch"),
    "run_test": (False, "the test split is not there"),
    "compute_test_loss": (False, "the test split is not there"),
    "tensorboard": (False, _OTHERS),
    "mlflow": (False, _OTHERS),
    "clearml": (False, "the package does not have it yet"),
    "progress_bar": (None, "status.json shows the progress"),
    "save_dataset_grids": (False, "the output folder holds what the run contract names"),
    "persistent_workers": (False, "each epoch's random numbers depend only on the seed and the epoch"),
    "pin_memory": (PACKAGE, _PACKAGE),
    "pack_targets": (PACKAGE, _PACKAGE),
    "num_sanity_val_steps": (0, "a validation before the first epoch tells nothing"),
    "compute_val_loss": (False, "nothing in a spec depends on it"),
    "compute_train_metrics": (False, "nothing in a spec depends on it"),
    "compact_train_metrics": (PACKAGE, _PACKAGE),
    "train_log_on_step": (False, _PACKAGE),
    "train_log_sync_dist": (False, _ONE),
    "lr_scheduler_interval": ("step", "the cosine goes down with each step"),
    "lr_scheduler_monitor": (PACKAGE, "the cosine watches no figure"),
    "auto_batch_target_effective": (PACKAGE, "the spec says the batch size"),
    "auto_batch_max_targets_per_image": (PACKAGE, "the spec says the batch size"),
    "auto_batch_ema_headroom": (PACKAGE, "the spec says the batch size"),
    "accelerator": ("auto", _DEVICE),
    "devices": (1, _ONE),
    "num_nodes": (1, _ONE),
    "strategy": ("auto", _ONE),
    "sync_bn": (False, _ONE),
    "eval_masks_head_resolution": (False, _DETECTION),
    "keypoint_flip_pairs": ([], _DETECTION),
    "keypoint_l1_loss_coef": (0, _DETECTION),
    "keypoint_findable_loss_coef": (0, _DETECTION),
    "keypoint_visible_loss_coef": (0, _DETECTION),
    "keypoint_nll_loss_coef": (0, _DETECTION),
    "keypoint_oks_sigmas": (None, _DETECTION),
    # ModelConfig
    "device": (PACKAGE, _DEVICE),
    "amp": (PACKAGE, "the package no longer uses it where amp_dtype is set"),
    "model_name": (PACKAGE, _SIZE),
    "license": (PACKAGE, "it is read from the package, and compared with architectures.py"),
    "num_channels": (3, "images are RGB"),
    "encoder": (PACKAGE, _SIZE),
    "out_feature_indexes": (PACKAGE, _SIZE),
    "two_stage": (PACKAGE, _SIZE),
    "projector_scale": (PACKAGE, _SIZE),
    "hidden_dim": (PACKAGE, _SIZE),
    "patch_size": (PACKAGE, _SIZE),
    "num_windows": (PACKAGE, _SIZE),
    "sa_nheads": (PACKAGE, _SIZE),
    "ca_nheads": (PACKAGE, _SIZE),
    "dec_n_points": (PACKAGE, _SIZE),
    "bbox_reparam": (PACKAGE, _SIZE),
    "lite_refpoint_refine": (PACKAGE, _SIZE),
    "layer_norm": (PACKAGE, _SIZE),
    "num_decoder_registers": (PACKAGE, _SIZE),
    "positional_encoding_size": (PACKAGE, "it follows from resolution"),
    "backbone_lora": (False, "its extra weights are not part of the exported graph's tests"),
    "postprocess_trace_alpha": (PACKAGE, _DETECTION),
    "segmentation_head": (False, _DETECTION),
    "mask_downsample_ratio": (PACKAGE, _DETECTION),
    "use_grouppose_keypoints": (False, _DETECTION),
    "keypoint_cross_attn": (PACKAGE, _DETECTION),
    "inter_instance_kp_attn": (PACKAGE, _DETECTION),
    "grouppose_keypoint_dim_downscale": (PACKAGE, _DETECTION),
    "dual_projector": (PACKAGE, _DETECTION),
    "dual_projector_kp_only": (PACKAGE, _DETECTION),
    "num_keypoints_per_class": ([], _DETECTION),
}


def why_not(name: str) -> str:
    """Why args cannot set a field of the package; empty for a name that is no field of it."""
    if name in SPEC:
        return f"it comes from {SPEC[name]}"
    return PINNED[name][1] if name in PINNED else ""


def value_of(name: str, args: dict[str, Any]) -> tuple[bool, Any]:
    """Whether this trainer gives a value to a field that is not of the spec, and the value."""
    if name in args:
        return True, args[name]
    if name in PINNED and PINNED[name][0] is not PACKAGE:
        return True, PINNED[name][0]
    return False, None
