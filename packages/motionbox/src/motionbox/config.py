"""Every number of the extraction, as one frozen tree of models: `ExtractConfig`.

A preset is a TOML file of this package (`configs/<preset>.toml`); a user's TOML file changes single values on top of
it. Unknown keys are refused with the nearest valid name. The resolved config and its hash go into every store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from motionbox.errors import ConfigError
from motionbox.settings import digest_of, read_own_toml, read_toml, toml_names, validate

DEFAULT_PRESET = "tuned"
"""What finds the action best; `paper` and `release` are what the paper and its released code say."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FramesConfig(_Section):
    """Decoding: which pixels the flow sees.

    Attributes:
        short_side_px: Frames are shrunk (area interpolation) until the short side is at most this; never enlarged.
        duplicate_ratio: A frame repeats the one before (30 fps stored at 60) where its mean absolute difference to it
            is below this share of those around it, see `frames.find_duplicates`; flow skips such frames. 0: off.
        spans: Which frames of a video are processed: `annotated`: those of its clips; `all`: every one. Clips and their
            boxes are the same either way, `Store.video_rows` shows the rest.
        span_margin_seconds: `annotated` clips are widened by this on both sides, then to whole blocks (see `plan`).
    """

    short_side_px: int = Field(256, ge=16, le=4096)
    duplicate_ratio: float = Field(0.25, ge=0, lt=1)
    spans: Literal["annotated", "all"] = "annotated"
    span_margin_seconds: float = Field(1.0, ge=0)


class TVL1Params(_Section):
    """Parameters of TV-L1 optical flow (Zach, Pock, Bischof 2007), named as in the paper and in OpenCV.

    Attributes:
        variant: `opencv-cpu` follows `cv2.optflow.DualTVL1OpticalFlow`, `opencv-cuda` follows
            `cv2.cuda.OpticalFlowDual_TVL1`: different algorithms with different results.
        tau: Time step of the dual update.
        lambda_: Weight of the data term; smaller is smoother.
        theta: Tightness of the coupling between the two half problems.
        num_scales: Most levels of the pyramid.
        scale_step: Size ratio between two levels.
        num_warps: Warpings per level.
        epsilon: Stop iterating when the mean squared update falls under its square.
        inner_iterations: Fixed-point iterations between two median filterings; 300 for `opencv-cuda`.
        outer_iterations: Median filterings per warp; 1 for `opencv-cuda`, which has none.
        median_size: Side of the median filter in pixels; 1 turns it off and is the only value of `opencv-cuda`.
    """

    variant: Literal["opencv-cpu", "opencv-cuda"] = "opencv-cpu"
    tau: float = Field(0.25, gt=0, le=0.25)
    lambda_: float = Field(0.15, gt=0)
    theta: float = Field(0.3, gt=0)
    num_scales: int = Field(5, ge=1, le=16)
    scale_step: float = Field(0.8, gt=0, lt=1)
    num_warps: int = Field(5, ge=1)
    epsilon: float = Field(0.01, ge=0)
    inner_iterations: int = Field(30, ge=1)
    outer_iterations: int = Field(10, ge=1)
    median_size: Literal[1, 3, 5] = 5

    @classmethod
    def fast(cls) -> TVL1Params:
        """Return the set of preset `fast`: one round of 20 iterations per warping, one pyramid level more.

        As close to known flow as the default; clip boxes move about twice as far from the default's as those of a
        default whose lambda is 0.1501 (docs/how-fast.md).
        """
        return cls(num_scales=6, inner_iterations=20, outer_iterations=1)

    @classmethod
    def draft(cls) -> TVL1Params:
        """Return the set for previews: as close to known flow as the default, at a third of its time.

        A steeper pyramid with one level more, ten iterations per warping, a 3x3 median. Frame boxes, which hang on
        thresholds, differ from the default's.
        """
        return cls(num_scales=6, scale_step=0.7, lambda_=0.12, inner_iterations=10, outer_iterations=1, median_size=3)

    @model_validator(mode="before")
    @classmethod
    def _cuda_defaults(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("variant") == "opencv-cuda":
            return {"inner_iterations": 300, "outer_iterations": 1, "median_size": 1} | values
        return values

    @model_validator(mode="after")
    def _cuda_has_no_median(self) -> TVL1Params:
        if self.variant == "opencv-cuda" and (self.median_size, self.outer_iterations) != (1, 1):
            raise ValueError(
                "variant opencv-cuda has no median filter: median_size and outer_iterations must be 1, "
                f"got {self.median_size} and {self.outer_iterations}"
            )
        return self


FLOW_METHODS: dict[str, tuple[str, ...]] = {"tvl1": ("numba", "opencv", "cuda"), "dis": ("opencv",)}
"""Method -> backends that offer it, see `motionbox.flow.ENGINES`; the first backend is what `auto` takes."""


class FlowConfig(_Section):
    """Optical flow between a frame and a later one.

    Attributes:
        method: One of `FLOW_METHODS`: `tvl1`, or `dis` (OpenCV's dense inverse search) as the quick alternative.
        step_seconds: Distance of the two frames; None takes the next distinct frame.
        tvl1: Parameters of TV-L1.
    """

    method: str = "tvl1"
    step_seconds: float | None = Field(None, gt=0)
    tvl1: TVL1Params = TVL1Params()

    @field_validator("method")
    @classmethod
    def _method_is_known(cls, method: str) -> str:
        if method not in FLOW_METHODS:
            raise ValueError(f"must be one of {', '.join(FLOW_METHODS)}")
        return method


class StoreConfig(_Section):
    """What the store keeps besides boxes.

    Attributes:
        motion_maps: Keep the motion maps (uint8).
        map_scale: Motion maps are stored at 1/`map_scale` of the working size.
        map_full_scale: Motion map value (pixels per frame step and pixel) that is stored as 255; larger ones saturate.
            Stored as 255 * sqrt(value / map_full_scale).
        static_energy: A clip whose motion energy (mean of the motion map, pixels per frame step and pixel) is below
            this in nine frames of ten stands still: what moves is the noise of its compression.
        flow: Keep the flow itself, in the working size: `float16`, `uint8` (an order of magnitude smaller) or `none`.
        flow_bound_px: Displacement that `uint8` holds at most; larger ones saturate, others are off by up to 1/254.
        clips: Keep the frames in colour for training, short side at most `clip_blocks.SHORT_SIDE_PX`: `h264` (few
            bytes), `jpeg` (uneven steps read faster) or `none`. Part of the digest only where not `none`.
    """

    motion_maps: bool = True
    map_scale: int = Field(8, ge=1, le=64)
    map_full_scale: float = Field(2.0, gt=0)
    static_energy: float = Field(0.002, ge=0)
    flow: Literal["none", "float16", "uint8"] = "none"
    flow_bound_px: float = Field(20.0, gt=0)
    clips: Literal["none", "h264", "jpeg"] = "none"


class MotionConfig(_Section):
    """What a motion map measures: motion boundaries, eq. (1) of the paper, or motion against the camera's.

    Attributes:
        cue: `boundaries`: magnitude of the flow's derivatives, eq. (1). `residual`: magnitude of the flow that is left
            when an affine camera motion, fitted robustly to the whole frame, is taken away; pixels per frame step.
        derivative: Finite difference of the flow: `central` or `prewitt`.
        window: Derivatives are averaged over this many flows (1: the equation as printed; 8: the released code).
        combine: `joint`: root of the sum of all four squared derivatives; `mean`: mean of the magnitudes of u and v.
        quantise_bound_px: Round the flow to 8 bits over [-bound, bound] first, as the released code does; None: off.
        channels: `both`, or `vertical` alone: the horizontal component is lost in the released code.
        explained_weight: Weight of motion that the camera's motion explains as well as the flow, compared on the frames
            (see `motionbox.motion.photometric`); 1 does not compare. Only for the cue `residual`.
    """

    cue: Literal["boundaries", "residual"] = "boundaries"
    derivative: Literal["central", "prewitt"] = "central"
    window: int = Field(1, ge=1, le=256)
    combine: Literal["joint", "mean"] = "joint"
    quantise_bound_px: float | None = Field(None, gt=0)
    channels: Literal["both", "vertical"] = "both"
    explained_weight: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _weighing_needs_the_camera(self) -> Self:
        if self.cue != "residual" and self.explained_weight != 1:
            raise ValueError(f'explained_weight must be 1 for cue = "{self.cue}", got {self.explained_weight}')
        return self


class ContourConfig(_Section):
    """Motion map -> smoothed map -> ranked contours.

    Attributes:
        sigma_px: Gaussian before the first threshold, in pixels of the working size.
        threshold_max: Responses under this share of the frame's maximum are suppressed.
        threshold_noise: Responses under this many robust standard deviations of the map (1.4826 times its median) are
            suppressed; 0 turns this off.
        wide_sigma_share: Second, wide Gaussian, as a share of the short side; 0 leaves it and its threshold out.
        threshold_std: Second threshold: mean plus this many standard deviations of the widely smoothed map.
        rank_by: `area`, or `energy`: the sum of the smoothed map inside.
        num_contours: Most contours kept, highest rank first.
        max_centre_distance: Later contours are dropped further than this share of the diagonal from the first's centre.
        min_peak: A smoothed map whose maximum (in the unit of the map) is not above this has no motion.
        min_contrast: A widely smoothed map whose peak is not above 1 + this times its mean is even: it gives no box.
    """

    sigma_px: float = Field(1.0, ge=0)
    threshold_max: float = Field(0.4, ge=0, lt=1)
    threshold_noise: float = Field(0.0, ge=0)
    wide_sigma_share: float = Field(0.125, ge=0, lt=1)
    threshold_std: float = Field(1.5, ge=0)
    rank_by: Literal["area", "energy"] = "area"
    num_contours: int = Field(2, ge=1)
    max_centre_distance: float = Field(0.4, ge=0)
    min_peak: float = Field(0.02, ge=0)
    min_contrast: float = Field(0.15, ge=0)


class AreaConfig(_Section):
    """How a clip's motion areas are made from its motion maps; see `motionbox.motion.evidence` and `.areas`.

    Attributes:
        noise_ratio: A cell moves where its motion exceeds this many robust standard deviations of the frame.
        peak_ratio: ... and this share of the clip's sustained peak.
        persist_seconds: Motion lasts as far as it is seen this long before and after it, too; 0: all of it does.
        persist_px: ... within this distance, in pixels of the working size.
        sustained_seconds: A value counts as reached when the clip reaches it for this long in sum.
        num_regions: Most moving regions of a frame, strongest first.
        min_region: A region is evidence from this share of the clip's sustained lasting energy.
        min_moving: A region counts as motion from this share of it.
        memory_seconds: Evidence fades by 1/e over this much time of typical motion, and not sooner than over one frame;
            rest does not age it.
        cut_ratio: A frame whose motion is this many times the clip's median noise everywhere is a scene cut.
        evidence_power: Evidence is raised to this power: larger, and what moves weakly counts less.
        level_weight: Weight of a column's or row's level of evidence for its membership, see `areas.membership`.
        depth_weight: Weight of how deep it lies in the evidence.
        member_bias: Constant of the membership: larger makes larger areas.
        least_strength: An area ends where its strength falls under this.
        close_up: Closeness (see `areas.close_up_factor`) above which a clip may be a close-up.
        close_up_acting: ... where less than this share of its time has evidence of its own.
        close_up_unit: A close-up's areas grow by (closeness / close_up_unit)^2.
        close_up_area: Share of the frame that they grow to at most.
    """

    noise_ratio: float = Field(2.75, gt=0)
    peak_ratio: float = Field(0.02, ge=0, lt=1)
    persist_seconds: float = Field(0.05, ge=0)
    persist_px: float = Field(24.0, ge=0)
    sustained_seconds: float = Field(0.15, ge=0)
    num_regions: int = Field(2, ge=1)
    min_region: float = Field(0.4, ge=0, lt=1)
    min_moving: float = Field(0.05, ge=0, lt=1)
    memory_seconds: float = Field(0.05, gt=0)
    cut_ratio: float = Field(6.0, gt=1)
    evidence_power: float = Field(1.5, gt=0)
    level_weight: float = Field(0.58, ge=0)
    depth_weight: float = Field(0.48, ge=0)
    member_bias: float = 2.76
    least_strength: float = Field(0.2, ge=0, lt=1)
    close_up: float = Field(0.5, ge=0)
    close_up_acting: float = Field(0.5, ge=0, le=1)
    close_up_unit: float = Field(0.3, gt=0)
    close_up_area: float = Field(0.65, gt=0, le=1)


class BoxConfig(_Section):
    """Frame boxes -> stabilised boxes -> clip box.

    Attributes:
        max_width_share: A wider box (share of the frame's width) is degenerate.
        max_height_share: A taller box (share of the frame's height) is degenerate.
        min_area_share: A smaller box (share of the frame's area) is degenerate.
        stabilise: `nearest`: a degenerate box takes the nearest valid one; `none`; `areas`: boxes of areas.
        pad_share: Boxes grow by this share of their own size, half on each side.
    """

    max_width_share: float = Field(0.7, gt=0, le=1)
    max_height_share: float = Field(0.7, gt=0, le=1)
    min_area_share: float = Field(0.01, ge=0, lt=1)
    stabilise: Literal["nearest", "none", "areas"] = "nearest"
    pad_share: float = Field(0.05, ge=0, le=1)


class ExtractConfig(_Section):
    """Everything that shapes the numbers of a run, step by step."""

    preset: str = "paper"
    frames: FramesConfig = FramesConfig()
    flow: FlowConfig = FlowConfig()
    motion: MotionConfig = MotionConfig()
    contours: ContourConfig = ContourConfig()
    boxes: BoxConfig = BoxConfig()
    areas: AreaConfig = AreaConfig()
    store: StoreConfig = StoreConfig()

    @model_validator(mode="after")
    def _areas_need_maps(self) -> Self:
        if self.boxes.stabilise == "areas" and not self.store.motion_maps:
            raise ValueError(
                'store.motion_maps must be true for boxes.stabilise = "areas"; '
                "keep the maps, or choose boxes.stabilise = nearest"
            )
        return self

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON of all values (the preset's name is not one of them)."""
        values = self.model_dump(mode="json", exclude={"preset"})
        _drop_idle(values)
        return digest_of(values)


def _drop_idle(values: dict[str, Any]) -> None:
    """Take away what shapes nothing in a store under the other values."""
    if values["frames"]["spans"] == "all":
        del values["frames"]["span_margin_seconds"]
    if values["store"]["flow"] != "uint8":
        del values["store"]["flow_bound_px"]
    for name in ("flow", "clips"):  # a store from before there were such has the same content: it can be resumed
        if values["store"][name] == "none":
            del values["store"][name]


def preset_names() -> list[str]:
    """Return the names of the presets that come with the package."""
    return toml_names("motionbox.configs")


def load_config(
    preset: str = DEFAULT_PRESET, path: str | Path | None = None, overrides: dict[str, Any] | None = None
) -> ExtractConfig:
    """Resolve a configuration: preset, then a TOML file, then single overrides.

    Args:
        preset: Name of a preset, see `preset_names`.
        path: TOML file whose values replace the preset's.
        overrides: Dotted key -> value, e.g. `{"flow.method": "dis"}`; the last word.

    Raises:
        ConfigError: Unknown preset, key or value; says which key and the nearest valid one.
    """
    if preset not in preset_names():
        raise ConfigError(f"preset must be one of {', '.join(preset_names())}, got {preset!r}")
    values = read_own_toml("motionbox.configs", preset)
    values["preset"] = preset
    if path is not None:
        _merge(values, read_toml(Path(path), "config file", "check --config"))
    for key, value in (overrides or {}).items():
        _merge(values, _nest(key.split("."), value))
    return validate(ExtractConfig, values, str(path) if path is not None else f"preset {preset}")


def config_of_run(values: dict[str, Any]) -> ExtractConfig:
    """Build the config that a store's run was made with, by this version or another one.

    Args:
        values: As `run.json` holds them. What this version does not know shapes nothing here and is left out; what the
            other one did not know takes its default.
    """
    return ExtractConfig.model_validate(_known(values, ExtractConfig))


def _known(values: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return the values whose keys a model knows, in its sections, too."""
    known = {}
    for name, value in values.items():
        field = model.model_fields.get(name)
        if field is None:
            continue
        kind = field.annotation
        is_section = isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, dict)
        known[name] = _known(value, kind) if is_section else value  # type: ignore[arg-type]
    return known


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nest(keys[1:], value)}


def _merge(base: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value
