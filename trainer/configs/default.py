"""Every setting, with its default. A variant imports this and states only its differences; a misspelt key is an error."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()

    # The network.
    config.backbone = "densenet121"  # any classifier of keras.applications, in lower case
    config.weights = (
        "imagenet"  # imagenet, none, or a path: backbone weights (.h5), a .keras file, an artifact
    )
    config.fallback_backbone = (
        ""  # to train from random weights where ImageNet's can't be downloaded; "" for an error
    )
    config.pooling = "avg"  # avg or max
    config.head_widths = (
        1024,
        1024,
        512,
    )  # Dense ReLU layers before the logit; () for a linear head
    config.dropout = 0.0  # on the pooled vector
    config.unfreeze_layers = "60"  # of the backbone, from the end: a count, a share (70%), all, or the first one's name; random weights: all

    # Phase one trains the head on the frozen backbone, phase two fine-tunes.
    config.head_epochs = 0
    config.head_learning_rate = 1e-3
    config.epochs = 40
    config.global_batch_size = 16
    config.reference_batch_size = 16  # learning rates are for this batch; another scales them (optimization.batch_factor); 0: never
    config.optimizer = "adamw"  # adamw, or sgd (Nesterov, momentum 0.9)
    config.learning_rate = 2e-4
    config.backbone_lr_factor = (
        1.0  # the end of the backbone learns at this fraction of the head's rate ...
    )
    config.depth_lr_decay = 1.0  # ... and its beginning at this fraction of its end's
    config.weight_decay = 1e-4  # kernels only
    config.schedule = "cosine"  # cosine, plateau (times plateau_factor), or constant
    config.warmup_epochs = 1.0
    config.plateau_factor = 0.2
    config.plateau_patience = 3
    config.label_smoothing = 0.0
    config.class_weights = True  # each class weighs the same in the loss
    config.ema_decay = 0.0  # of the weights that are evaluated and exported; 0 for the last ones

    # Which epoch is kept, by the validation split.
    config.monitor = "auroc"  # auroc, loss, or last for the end of the schedule
    config.monitor_smoothing = 1  # epochs averaged before they are compared
    config.early_stopping_patience = 10

    config.augmentation = ml_collections.ConfigDict(
        {
            "horizontal_flip": True,
            "vertical_flip": False,
            "rotation": 30.0,  # degrees either way
            "shift": 0.05,  # of the side
            "zoom": 0.1,
            "contrast": 0.2,
            "brightness": 0.1,
        }
    )
    config.test_time_flip = (
        False  # ask the mirror image too and average; scoring takes twice the time
    )
    config.threshold_rule = (
        "kappa"  # or youden, accuracy, sensitivity>=0.95, specificity>=0.9; fitted on validation
    )
    config.abstain = 0.0  # share of the validation images that may be called uncertain

    # How it runs; none of these changes what is learnt, beyond rounding.
    config.precision = "float32"  # float32, mixed_bfloat16 or mixed_float16
    config.xla = False  # compile forward and backward pass with XLA: half a minute first, slower on a CPU, worth a try on a GPU
    config.steps_per_execution = 1
    config.cache = "auto"  # decoded images in memory, disk, or auto
    config.checkpoint_every_steps = 200
    config.keep_checkpoints = 3
    config.deterministic = True
    config.verify_engines = True  # at the end, measure the engines that score faster than TensorFlow; else humerus-verify does
    config.cam_methods = ""  # with commas: maps that humerus-score --method may draw beside grad_cam, as fused_layer_cam
    config.seed = 0
    return config.lock()
