"""Every setting, with its default.

A recipe imports this and states only its differences; a misspelt key is an error. Which values each
setting takes is stated in `trainer.training.settings`.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()

    # The network.

    # Any classifier of keras.applications, in lower case, or smallnet.
    config.backbone = "densenet121"
    # `imagenet`, `none`, or a path: backbone weights (.h5), a .keras file, or an artifact.
    config.weights = "imagenet"
    # Scale of the grey levels that the weights expect: `imagenet`, `radimagenet`, `-1..1`, `0..1`,
    # `0..255`; `auto` is that of the earlier run, or of Keras's ImageNet weights.
    config.input_scale = "auto"
    # The backbone that trains from random weights where ImageNet's can't be downloaded; empty: stop
    # with an error instead.
    config.fallback_backbone = ""
    # `avg` or `max`, over the last feature map.
    config.pooling = "avg"
    # Widths of the Dense ReLU layers before the logit; () for a linear head.
    config.head_widths = (1024, 1024, 512)
    # Dropout rate on the pooled vector.
    config.dropout = 0.0
    # Backbone layers to train: a count or a share (70%) from the end, `all`, or the name of the
    # first one. From random weights, all of them train.
    config.unfreeze_layers = "60"

    # Phase one trains the head on the frozen backbone; phase two fine-tunes. A run has
    # head_epochs + epochs in all. From random weights there is no phase one.

    # Epochs of phase one; 0 fine-tunes from the start.
    config.head_epochs = 0
    # Highest learning rate of phase one.
    config.head_learning_rate = 1e-3
    # Epochs of phase two only.
    config.epochs = 40
    # Images of one optimizer step, on all devices and hosts together.
    config.global_batch_size = 16
    # Parts of a batch that are computed one after the other, where the devices can't hold it; the
    # optimizer takes one step with the gradients of all. Batch normalisation that trains sees a
    # part at a time.
    config.gradient_accumulation_steps = 1
    # Learning rates are stated for this batch size and scaled for others, see
    # `optimization.compute_batch_factor`; 0 switches the scaling off.
    config.reference_batch_size = 16
    # `adamw`, or `sgd` with Nesterov momentum 0.9.
    config.optimizer = "adamw"
    # Highest learning rate of phase two, of the head.
    config.learning_rate = 2e-4
    # The last backbone layer learns at this fraction of the head's learning rate.
    config.backbone_lr_factor = 1.0
    # The first backbone layer learns at this fraction of the last one's learning rate.
    config.depth_lr_decay = 1.0
    # Applies to kernels only.
    config.weight_decay = 1e-4
    # Largest norm of the gradients of the whole batch together; 0 for no limit.
    config.clip_norm = 0.0
    # `cosine`, `plateau` (multiplies the rate by plateau_factor), or `constant`.
    config.schedule = "cosine"
    # Epochs in which the rate rises linearly to its highest value; may be a fraction.
    config.warmup_epochs = 1.0
    config.plateau_factor = 0.2
    # Epochs without improvement before the rate is lowered.
    config.plateau_patience = 3
    # In [0, 1): labels become s / 2 and 1 - s / 2.
    config.label_smoothing = 0.0
    # Each class has the same weight in the loss.
    config.class_weights = True
    # Decay of the moving average of the weights that is evaluated and exported; 0 exports the last
    # weights.
    config.ema_decay = 0.0

    # Which epoch is kept, by the validation split.

    # `auroc`, `loss`, or `last` for the end of the schedule.
    config.monitor = "auroc"
    # Number of epochs whose figures are averaged before they are compared.
    config.monitor_smoothing = 1
    # Epochs without improvement before the run ends; 0 never ends it early.
    config.early_stopping_patience = 10

    config.augmentation = ml_collections.ConfigDict()
    config.augmentation.horizontal_flip = True
    config.augmentation.vertical_flip = False
    # Degrees in either direction.
    config.augmentation.rotation = 30.0
    # Fraction of the side.
    config.augmentation.shift = 0.05
    # The size changes by a factor from 1 / (1 + zoom) to 1 + zoom.
    config.augmentation.zoom = 0.1
    # The exponent of the gamma curve is from 1 / (1 + contrast) to 1 + contrast.
    config.augmentation.contrast = 0.2
    # Grey levels change by a factor from 1 / (1 + brightness) to 1 + brightness.
    config.augmentation.brightness = 0.1

    # How images are scored.

    # Flipped copies of an image that are scored too, and averaged: `none`, `horizontal` for its
    # mirror image (takes twice as long), `both` for all four combinations (four times), or `auto`:
    # what raises the AUROC of held-out images enough, see `trainer.training.flip_choice`.
    config.test_time_flips = "auto"
    # `kappa`, `youden`, `accuracy`, a bound such as `sensitivity>=0.95` or `specificity>=0.9`, or a
    # fixed threshold; fitted on validation images.
    config.threshold_rule = "kappa"
    # Largest share of the validation images that may be called uncertain.
    config.abstain = 0.0

    # How it runs. None of these changes what is learnt, beyond rounding.

    # `float32`, `mixed_bfloat16`, `mixed_float16`, or `auto`: bfloat16 where it makes steps faster
    # on the devices, else float32.
    config.precision = "float32"
    # Compile forward and backward pass with XLA: takes half a minute first, slower on a CPU, worth
    # a try on a GPU.
    config.xla = False
    # Steps in one compiled call; more lessen the overhead of short steps.
    config.steps_per_execution = 1
    # Where decoded images are kept: `memory`, `disk`, or `auto`.
    config.cache = "auto"
    config.checkpoint_every_steps = 200
    # The last checkpoints to keep, beside that of the best epoch.
    config.keep_checkpoints = 3
    # The same run gives the same weights on the same machine, at some cost of speed on a GPU.
    config.deterministic = True
    # At the end, measure the engines that score faster than TensorFlow; humerus-verify can do it
    # later.
    config.verify_engines = True
    # Comma-separated: maps that humerus-score --method may draw beside grad_cam, such as
    # fused_layer_cam or refined_cam.
    config.cam_methods = ""
    # Of the initial weights, the order of the images and the augmentation.
    config.seed = 0
    return config.lock()
