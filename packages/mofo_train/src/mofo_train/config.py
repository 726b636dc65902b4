"""Recipes: one TOML file per row of the table, checked as a frozen tree of models.

A recipe is a file of this package (`recipes/<name>.toml`) or a path; `--set section.key=value` changes single values.
Unknown keys are refused with the nearest valid name. The resolved recipe is written into every run's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mofo_train.errors import ConfigError
from motionbox.settings import digest_of, parse_overrides, read_own_toml, read_toml, toml_names, validate
from motionbox.wording import did_you_mean

MASK_NAMES = ["tube", "random", "motion", "motion_map", "flow_tube"]
"""Values of `mask.kind`; what each means stands in `guidance.mask_kinds.MASKS`."""


PATCH_PX = 16
"""Side of a tubelet, of every model but those of `SMALL_PATCH_PX`."""
SMALL_PATCH_PX = {"videomae_mini": 8}
"""Side of a tubelet of models for small pictures."""

_ROUNDING = 1e-9
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def usual_split(name: str) -> str:
    """Return the usual name of a split: `validation` for `val`; other names as they are."""
    return _SPLIT_NAMES.get(name.lower(), name)


class Section(BaseModel):
    """A part of a recipe: frozen, no unknown keys, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _word_is_kind(cls, value: Any) -> Any:
        """Take `guidance = "area"` for `guidance.kind = "area"`, in every section that has kinds."""
        return {"kind": value} if isinstance(value, str) and "kind" in cls.model_fields else value


class NetworkConfig(Section):
    """The encoder.

    Attributes:
        name: Size of the encoder, and of the decoder in pretraining.
        num_frames: Frames of a clip.
        image_px: Side of a frame after cropping.
        drop_path: Stochastic depth of the encoder's last block.
        grad_checkpointing: Activation checkpointing: less memory, about a third more time.
        init: Checkpoint to start from (VideoMAE, MOFO, mmaction2, Hugging Face or ours); None = random weights.
        init_weights: The model's weights or their average (EMA), of a file that holds both; None = the model's.
    """

    name: Literal[
        "videomae_mini", "videomae_tiny", "videomae_small", "videomae_base", "videomae_large", "videomae_huge"
    ] = "videomae_base"
    num_frames: int = Field(16, ge=2, multiple_of=2)
    image_px: int = Field(224, ge=8)
    drop_path: float = Field(0.0, ge=0, lt=1)
    grad_checkpointing: bool = False
    init: Path | None = None
    init_weights: Literal["model", "ema"] | None = None

    @model_validator(mode="after")
    def _tubelets_fill_the_frame(self) -> NetworkConfig:
        if self.image_px % self.patch_px:
            raise ValueError(f"image_px must be a multiple of {self.patch_px} for {self.name}, got {self.image_px}")
        return self

    @property
    def patch_px(self) -> int:
        """Side of a tubelet."""
        return SMALL_PATCH_PX.get(self.name, PATCH_PX)


class ModelConfig(NetworkConfig):
    """The autoencoder of pretraining.

    Attributes:
        decoder_depth: Blocks of the decoder; None = the published number.
        freeze_patch_embed: Keep the tubelet embedding at its random first weights (MoCo v3), so that a short
            pretraining can't make everything but the mean colour small in it; finetuning trains it all the same.
    """

    decoder_depth: int | None = Field(None, ge=1)
    freeze_patch_embed: bool = False


class FoldsConfig(Section):
    """Cross-validation: all labelled clips are dealt to folds, of which one stands for `validation`.

    Whole groups are dealt, so that every fold has about its share of each label. A group is what the column `group` of
    the clip list says, where it has one (takes of one recording, clips of one person), else a video.

    Attributes:
        number: Folds.
        held_out: The fold that is `validation`, from 0; the others are `train`.
    """

    number: int = Field(ge=2)
    held_out: int = Field(ge=0)

    @model_validator(mode="after")
    def _held_out_is_a_fold(self) -> FoldsConfig:
        if self.held_out >= self.number:
            raise ValueError(f"held_out must be below number = {self.number}, got {self.held_out}")
        return self


class ClipsConfig(Section):
    """Which clips.

    Attributes:
        dataset: The data set that the store must be of.
        split: Only clips of this split; None (`--set data.split=none`) = all.
        folds: Splits of our own in place of the store's; None = the store's.
        short_side_px: Larger videos are reduced to this short side while decoding.
        max_clips: Only so many clips, spread evenly over the split, for a pilot; None = all.
        crops_per_clip: Crops taken of every decoded clip (repeated augmentation); divides the batch.
        num_workers: Decoding processes per rank; 0 = decode in the training process. Each holds up to four batches in
            shared memory (/dev/shm), 2.4 MB per crop of 16 frames of 224 pixels.
        cache_gib: Memory of each of these processes for decoded clips, for data sets that fit; 0 = decode every time.
        max_bad_share: Stop when more than this share of the clips asked for cannot be read.
        boxes: `stored`; or to compare with: `full_frame`, or `random` (the clip's boxes, or its areas, moved to a
            random place).
        min_confidence: Clips whose box is less certain take the full frame, 0 to 1 (`stored`), or no area: masks are
            plain tube masks there.
        convert_on: Who makes views of the decoded planes of stored clips (RGB, crops, augmentation): each `worker`, or
            the `device`, batch by batch, which spares the workers much of their time and needs a store with H.264
            clips that are not reduced further; `auto`: the device where it is a GPU and the store's clips allow it.
            No GPU has run it yet, so the worker is the default.
    """

    dataset: str
    split: str | None = None
    folds: FoldsConfig | None = None
    boxes: Literal["stored", "full_frame", "random"] = "stored"
    min_confidence: float = Field(0.0, ge=0, le=1)
    short_side_px: int = Field(256, ge=16)
    max_clips: int | None = Field(None, ge=1)
    crops_per_clip: int = Field(1, ge=1)
    num_workers: int = Field(8, ge=0)
    cache_gib: float = Field(0.0, ge=0)
    max_bad_share: float = Field(0.01, ge=0, le=1)
    convert_on: Literal["auto", "worker", "device"] = "worker"

    @field_validator("split", mode="before")
    @classmethod
    def _none_is_no_split(cls, split: object) -> object:
        return None if split in ("none", "") else split


class DataConfig(ClipsConfig):
    """Which frames and crops pretraining takes.

    Attributes:
        stride_frames: Distance of the sampled frames.
        crop_scales: Sides of a crop as shares of the short side (MultiScaleCrop).
    """

    stride_frames: int = Field(2, ge=1)
    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)

    @model_validator(mode="after")
    def _scales_are_shares(self) -> DataConfig:
        if not self.crop_scales or not all(0 < scale <= 1 for scale in self.crop_scales):
            raise ValueError(f"crop_scales must be shares in (0, 1], got {self.crop_scales!r}")
        return self


class GuidanceConfig(Section):
    """What says which tokens are inside, for masks and for multi-cross attention.

    Attributes:
        kind: `box`: all that the motion box touches (the paper). `area`: the strongest patches of the motion areas.
        source: `motion`, or another guidance that the store holds (`motionbox import-boxes`), `annotated` for instance.
        max_share: Largest share of the patches inside (`area`).
    """

    kind: Literal["box", "area"] = "box"
    source: str = "motion"
    max_share: float = Field(0.4, gt=0, lt=1)


class MaskConfig(Section):
    """What is hidden.

    Attributes:
        kind: One of `MASK_NAMES`: `tube` (VideoMAE), `random` (ST-MAE), `motion` (MOFO: by the motion box),
            `motion_map`, or `flow_tube` (MGMAE: what is visible follows the flow; the store must keep it).
        mask_ratio: Share of the tokens hidden.
        inside_ratio: Share of the tubes inside the motion box hidden (`motion`).
        floor: Weight of a patch without motion relative to the mean (`motion_map`).
    """

    kind: str = "tube"
    mask_ratio: float = Field(0.9, gt=0, lt=1)
    inside_ratio: float = Field(0.75, ge=0, le=1)
    floor: float = Field(0.5, gt=0)

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, kind: str) -> str:
        if kind not in MASK_NAMES:
            raise ValueError(f"must be one of {', '.join(MASK_NAMES)}")
        return kind


class OptimConfig(Section):
    """AdamW and its schedule.

    Attributes:
        batch_size: Clips (crops) of one optimiser step, over all ranks and accumulated micro-batches.
        grad_accum_steps: Micro-batches of a step.
        epochs: Passes over the data.
        warmup_epochs: Epochs of these with rising learning rate; may be a fraction.
        base_lr: Peak learning rate per 256 clips of batch; the same scaling holds for the two below.
        warmup_lr: Learning rate of the first step.
        min_lr: Learning rate at the end of the cosine.
        betas: AdamW's.
        weight_decay: On matrices only.
        clip_grad_norm: Largest gradient norm; None = no clipping.
    """

    batch_size: int = Field(2048, ge=1)
    grad_accum_steps: int = Field(1, ge=1)
    epochs: int = Field(800, ge=1)
    warmup_epochs: float = Field(40, ge=0)
    base_lr: float = Field(1.5e-4, gt=0)
    warmup_lr: float = Field(1e-6, ge=0)
    min_lr: float = Field(1e-5, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.05, ge=0)
    clip_grad_norm: float | None = Field(None, gt=0)


Precision = Literal["fp32", "bf16", "fp16", "fp8"]
CompileMode = Literal["reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""Modes of `torch.compile` beside its default: CUDA graphs; those and tuned kernels; tuned kernels alone."""


class RunConfig(Section):
    """How a stage runs and what it writes.

    Attributes:
        precision: Number format of the forward and backward pass; `fp8` is bf16 with the products of the transformer
            blocks in 8 bits while training (GPUs of Hopper's generation and later).
        compile: Run the model through `torch.compile`; one of its modes, or true for the default one.
        log_every_steps: A row is logged every so many steps.
        checkpoint_every_steps: Distance of checkpoints; one is written at the end and on SIGTERM anyway.
        keep_checkpoints: How many are kept.
    """

    precision: Precision = "bf16"
    compile: Literal[True, False, CompileMode] = False
    log_every_steps: int = Field(10, ge=1)
    checkpoint_every_steps: int = Field(1000, ge=1)
    keep_checkpoints: int = Field(2, ge=1)


class PretrainRunConfig(RunConfig):
    """How pretraining runs.

    Attributes:
        sharding: On several ranks, `ddp` keeps a whole model on each, `fsdp` shares out parameters, gradients and
            optimiser state (for ViT-H).
        picture_every_epochs: Distance of reconstruction pictures; 0 = none.
    """

    sharding: Literal["ddp", "fsdp"] = "ddp"
    picture_every_epochs: int = Field(20, ge=0)


class PretrainConfig(Section):
    """A recipe of `mofo-train pretrain`; `guidance` says what is inside.

    Attributes:
        stage: `pretrain`.
        seed: Seed of weights, order, crops and masks.
        target: What a hidden tubelet's prediction is compared with: its pixels `normalised` by its own mean and
            standard deviation (the paper), or its `pixels` (VideoMAE's other setting).
    """

    stage: Literal["pretrain"]
    seed: int = Field(0, ge=0)
    target: Literal["normalised", "pixels"] = "normalised"
    model: ModelConfig = ModelConfig()
    data: DataConfig
    guidance: GuidanceConfig = GuidanceConfig()
    mask: MaskConfig = MaskConfig()
    optim: OptimConfig = OptimConfig()
    run: PretrainRunConfig = PretrainRunConfig()

    @model_validator(mode="after")
    def _areas_leave_room_for_the_rule(self) -> PretrainConfig:
        mask, share = self.mask, self.guidance.max_share
        visible = share * (1 - mask.inside_ratio)
        if self.guidance.kind == "area" and mask.kind == "motion" and visible > 1 - mask.mask_ratio + _ROUNDING:
            raise ValueError(
                f"guidance.max_share must be at most {(1 - mask.mask_ratio) / (1 - mask.inside_ratio):.3g}, so that "
                f"{mask.mask_ratio:.0%} of all tubes and {mask.inside_ratio:.0%} of those inside can be hidden, "
                f"got {share}"
            )
        return self


def config_digest(config: BaseModel) -> str:
    """Return the SHA-256 of the canonical JSON of a recipe, without who makes the views, which changes no result."""
    values = config.model_dump(mode="json")
    values.get("data", {}).pop("convert_on", None)
    return digest_of(values)


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return toml_names("mofo_train.recipes")


_Recipe = TypeVar("_Recipe", bound=BaseModel)


def load_recipe(kind: type[_Recipe], recipe: str | Path, overrides: Sequence[str] = ()) -> _Recipe:
    """Read a recipe and apply overrides.

    Args:
        kind: The model that checks it, `PretrainConfig` for instance.
        recipe: Name of a recipe of the package, or path of a TOML file.
        overrides: `section.key=value`, the value as in TOML or a bare word.

    Raises:
        ConfigError: No such recipe, no TOML, an unknown key (names the nearest) or an invalid value.
    """
    return override_recipe(kind, read_recipe(recipe), overrides, str(recipe))


def stage_of_recipe(recipe: str | Path) -> str:
    """Return what a recipe is for: `pretrain`, `finetune` or `table`; empty where it does not say.

    Raises:
        ConfigError: No such recipe, or no TOML.
    """
    return str(read_recipe(recipe).get("stage", ""))


def override_recipe(kind: type[_Recipe], values: dict[str, Any], overrides: Sequence[str], source: str) -> _Recipe:
    """Check the values of a recipe after applying overrides; arguments and errors as in `load_recipe`."""
    for key, value in parse_overrides(overrides).items():
        _assign(values, key.split("."), value)
    return validate(kind, values, f"recipe {source}")


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """Read a recipe's values as they stand in its file; arguments and errors as in `load_recipe`."""
    if str(recipe) in recipe_names():
        return read_own_toml("mofo_train.recipes", str(recipe))
    path = Path(recipe)
    if path.suffix != ".toml":
        hint = did_you_mean(str(recipe), recipe_names(), f"recipes: {', '.join(recipe_names())}")
        raise ConfigError(f"recipe must be a recipe's name or a .toml file, got {str(recipe)!r}; {hint}")
    return read_toml(path, "recipe", f"recipes: {', '.join(recipe_names())}")


def _assign(values: dict[str, Any], keys: list[str], value: Any) -> None:
    dotted = ".".join(keys)
    for key in keys[:-1]:
        if isinstance(values.get(key), str):
            values[key] = {"kind": values[key]}
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set must name a value inside sections, got {dotted!r}; {key!r} is no section")
    if isinstance(value, str) and isinstance(values.get(keys[-1]), dict):
        values, keys = values[keys[-1]], ["kind"]
    values[keys[-1]] = value
