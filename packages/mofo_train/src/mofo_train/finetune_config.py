"""The recipe of `mofo-train finetune`, which also says how the result is tested."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from mofo_train.config import ClipsConfig, GuidanceConfig, NetworkConfig, OptimConfig, RunConfig, Section, usual_split

FUSION_NAMES = ["mean", "weighted_mean", "mca", "mca_two_way"]
"""Values of `model.fusion`; what each means stands in `mofo_train.models.FUSIONS`."""

HeadNorm = Literal["layer", "batch"]
LabelColumn = Literal["label", "label_id", "action_id", "verb", "verb_class", "noun", "noun_class"]


class ClassifierConfig(NetworkConfig):
    """The classifier.

    Attributes:
        fusion: How tokens become one vector, one of `FUSION_NAMES`: `mean` (VideoMAE), `weighted_mean`, `mca` (MOFO),
            `mca_two_way`.
        probe: `none` trains everything; `linear` the fusion, norm and head on a frozen encoder; `attentive` a learned
            query that attends to all tokens of a frozen encoder, norm and head (fusion is `mean` then).
        head_norm: What stands before the head: `layer`, a layer norm (VideoMAE), or `batch`, a batch norm without
            parameters (MAE's linear probe). What clips have in common is most of an average of tokens; in a small
            network `layer` leaves it in, and verbs stay at chance for many thousand clips.
    """

    drop_path: float = Field(0.1, ge=0, lt=1)
    fusion: str = "mean"
    probe: Literal["none", "linear", "attentive"] = "none"
    head_norm: HeadNorm = "layer"

    @field_validator("fusion")
    @classmethod
    def _fusion_is_known(cls, fusion: str) -> str:
        if fusion not in FUSION_NAMES:
            raise ValueError(f"must be one of {', '.join(FUSION_NAMES)}")
        return fusion

    @model_validator(mode="after")
    def _attentive_has_no_fusion(self) -> ClassifierConfig:
        if self.probe == "attentive" and self.fusion != "mean":
            raise ValueError(f"fusion must be mean with probe attentive, got {self.fusion!r}")
        return self


class TaskConfig(Section):
    """What is predicted.

    Attributes:
        columns: Label columns of the store, one head each: `label_id`; `label` (the numbers in `label_id`, or the names
            in `label`); `action_id` (verb and noun are then marginals); `verb_class` and `noun_class`; `verb` and
            `noun` (these numbers, or the names in `verb` and `noun`).
        num_classes: Classes of each head; None (`none`) counts those of the store. A store with more is refused.
    """

    columns: tuple[LabelColumn, ...] = Field(min_length=1)
    num_classes: tuple[int, ...] | None = None

    @field_validator("num_classes", mode="before")
    @classmethod
    def _none_counts(cls, num_classes: object) -> object:
        return None if num_classes == "none" else num_classes

    @model_validator(mode="after")
    def _one_number_a_column(self) -> TaskConfig:
        if len({column.partition("_")[0] for column in self.columns}) != len(self.columns):
            raise ValueError(f"columns must differ in what they label, got {self.columns!r}")
        if self.num_classes is not None and len(self.num_classes) != len(self.columns):
            raise ValueError(f"num_classes must name {len(self.columns)} numbers, got {self.num_classes!r}")
        return self


class FinetuneDataConfig(ClipsConfig):
    """Which clips and which of their frames; the hold-out is part of `split`.

    Attributes:
        split: Only clips of this split; None (`none`) = those of `train` in splits of our own, see `labels.splits_of`.
        sampling: `segments`: one frame of each of `num_frames` equal parts (SSV2); `dense`: fixed stride.
        stride_frames: Distance of the frames (`dense`).
        num_labelled: Learn from so many clips, spread evenly over the split; the test split stays whole. None = all.
    """

    split: str | None = "train"
    crops_per_clip: int = Field(2, ge=1)
    sampling: Literal["segments", "dense"] = "segments"
    stride_frames: int = Field(4, ge=1)
    num_labelled: int | None = Field(None, ge=1)


class AugmentConfig(Section):
    """What happens to a training clip; boxes follow everything.

    Attributes:
        crop_area: Smallest and largest area of a random crop, shares of the frame.
        crop_aspect: Narrowest and widest aspect of a crop (width / height).
        flip_probability: Probability of mirroring; 0 where left and right matter (SSV2, the generated set).
        rand_ops: Operations of RandAugment; 0 = none.
        rand_magnitude: Their strength, 0 to 10.
        rand_magnitude_std: Its standard deviation.
        erase_probability: Probability of replacing a rectangle of all frames by noise.
        mixup_alpha: Parameter of mixup's Beta distribution; 0 = no mixup.
        cutmix_alpha: The same of cutmix; 0 = no cutmix. With both, each batch draws one of them.
        label_smoothing: Share of the target spread over all classes.
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (0.75, 4 / 3)
    flip_probability: float = Field(0.0, ge=0, le=1)
    rand_ops: int = Field(4, ge=0)
    rand_magnitude: float = Field(7.0, ge=0, le=10)
    rand_magnitude_std: float = Field(0.5, ge=0)
    erase_probability: float = Field(0.25, ge=0, le=1)
    mixup_alpha: float = Field(0.8, ge=0)
    cutmix_alpha: float = Field(1.0, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _ranges_rise(self) -> AugmentConfig:
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area must be two shares in (0, 1], the smaller one first, got {self.crop_area!r}")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise ValueError(f"crop_aspect must be two ratios above 0, the smaller one first, got {self.crop_aspect!r}")
        return self


class FinetuneOptimConfig(OptimConfig):
    """AdamW for finetuning.

    Attributes:
        layer_decay: Learning rate of each block relative to the next one; 1 = the same for all.
        ema_decay: Decay of the weights' moving average, which is then what is selected and saved; None = none.
        class_balance: Exponent of the inverse class frequency in the loss; 0 = off, 1 = every class weighs the same.
    """

    batch_size: int = Field(512, ge=1)
    epochs: int = Field(40, ge=1)
    warmup_epochs: float = Field(5, ge=0)
    base_lr: float = Field(5e-4, gt=0)
    min_lr: float = Field(1e-6, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float = Field(0.75, gt=0, le=1)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    class_balance: float = Field(0.0, ge=0, le=1)


class SelectionConfig(Section):
    """Which of the epochs' weights are kept; the test split has no say in it.

    Attributes:
        share: Share of the training split held out for choosing; 0 = take the last weights.
        by: Column whose groups are never torn apart: `participant_id` or `video_id`.
        every_epochs: Distance of the epochs that are compared.
    """

    share: float = Field(0.1, ge=0, lt=1)
    by: Literal["participant_id", "video_id"] = "video_id"
    every_epochs: int = Field(1, ge=1)


class ViewsConfig(Section):
    """How a clip is tested; logits of all views are averaged.

    Attributes:
        split: The test split.
        segments: Views in time.
        crops: Views in space, along the longer side.
        batch_clips: Clips of a forward pass, all their views at once.
    """

    split: str = "validation"
    segments: int = Field(2, ge=1)
    crops: int = Field(3, ge=1)
    batch_clips: int = Field(8, ge=1)


class FinetuneConfig(Section):
    """A recipe of `mofo-train finetune`."""

    stage: Literal["finetune"]
    seed: int = Field(0, ge=0)
    model: ClassifierConfig = ClassifierConfig()
    task: TaskConfig
    data: FinetuneDataConfig
    guidance: GuidanceConfig = GuidanceConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: FinetuneOptimConfig = FinetuneOptimConfig()
    selection: SelectionConfig = SelectionConfig()
    test: ViewsConfig = ViewsConfig()
    run: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _batches_have_a_variance(self) -> FinetuneConfig:
        if self.model.head_norm == "batch" and self.optim.batch_size == 1:
            raise ValueError("optim.batch_size must be at least 2 with model.head_norm batch, got 1")
        return self

    @model_validator(mode="after")
    def _test_split_is_not_trained_on(self) -> FinetuneConfig:
        if self.data.split is not None and usual_split(self.test.split) == usual_split(self.data.split):
            raise ValueError(f"test.split must differ from data.split, got {self.test.split!r} for both")
        return self
