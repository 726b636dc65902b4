from __future__ import annotations

from pathlib import Path

import pytest

from mofo_train.config import MASK_NAMES, PretrainConfig, config_digest, load_recipe, recipe_names
from mofo_train.errors import ConfigError
from mofo_train.finetune_config import FUSION_NAMES
from mofo_train.guidance.mask_kinds import MASKS
from mofo_train.models import FUSIONS
from mofo_train.table.recipe import TableConfig


@pytest.mark.parametrize("name", [name for name in recipe_names() if "_pretrain_" in name])
def test_recipes_are_valid_and_true_to_their_names(name: str) -> None:
    config = load_recipe(PretrainConfig, name)
    assert config.data.dataset == name.split("_")[0]
    if "vitb" in name:
        assert config.model.name == "videomae_base"
        assert (config.optim.epochs, config.optim.batch_size, config.optim.base_lr) == (800, 2048, 1.5e-4)
        assert config.mask.kind == {"videomae": "tube", "mofo": "motion"}[name.split("_")[3]]
    assert config.guidance.kind == ("area" if name.endswith("_area") else "box")


def test_overrides_change_single_values() -> None:
    config = load_recipe(
        PretrainConfig, "synthetic_pretrain_tiny", ["optim.epochs=3", "mask.kind=tube", "data.crop_scales=[1, 0.5]"]
    )
    assert (config.optim.epochs, config.mask.kind, config.data.crop_scales) == (3, "tube", (1, 0.5))
    assert config_digest(config) != config_digest(load_recipe(PretrainConfig, "synthetic_pretrain_tiny"))


def test_who_makes_the_views_is_no_part_of_a_result() -> None:
    digests = {
        config_digest(load_recipe(PretrainConfig, "synthetic_pretrain_tiny", [f"data.convert_on={who}"]))
        for who in ("worker", "device")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.epoch=3", r"unknown key 'optim\.epoch'; did you mean 'optim.epochs'"),
        ("optm.epochs=3", "unknown key 'optm'; did you mean 'optim'"),
        ("mask.kind=cube", "mask.kind: .*got 'cube'"),
        ("seed=-1", "seed: .*got -1"),
        ("seed", "--set must be section"),
        ("seed.x=1", "'seed' is no section"),
        ("model.image_px=100", "model: image_px must be a multiple of 16 for videomae_tiny, got 100"),
        ("data.crop_scales=[2]", r"data: crop_scales must be shares in \(0, 1\], got \(2\.0,\)$"),
    ],
)
def test_wrong_overrides_are_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(PretrainConfig, "synthetic_pretrain_tiny", [override])


def test_names_of_masks_and_fusions_have_their_code() -> None:
    assert list(MASKS) == MASK_NAMES
    assert list(FUSIONS) == FUSION_NAMES


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'ssv2_pretrain_vitb_mofo'"):
        load_recipe(PretrainConfig, "ssv2_pretrain_vitb_mof")
    with pytest.raises(ConfigError, match="does not exist"):
        load_recipe(PretrainConfig, tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("stage = ")
    with pytest.raises(ConfigError, match="readable TOML"):
        load_recipe(PretrainConfig, tmp_path / "b.toml")


def test_keys_of_rows_and_optional_sections_are_named_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'smoke\.seds'; did you mean 'smoke.seeds'"):
        load_recipe(TableConfig, "synthetic_table1", ["smoke.seds=3"])
    (tmp_path / "a.toml").write_text(
        'stage = "table"\ntitle = "t"\ndataset = "synthetic"\nbaseline = "a"\n[[rows]]\nnam = "a"\n'
    )
    with pytest.raises(ConfigError, match=r"rows\.0\.name: Field required|unknown key 'rows\.0\.nam'"):
        load_recipe(TableConfig, tmp_path / "a.toml")
    rows = 'rows=[{name="a", title="t", finetune="f", tite="t"}]'
    with pytest.raises(ConfigError, match=r"unknown key 'rows\.0\.tite'; did you mean 'rows.title'"):
        load_recipe(TableConfig, "synthetic_table1", ["baseline=a", rows])


def test_a_section_may_be_named_by_its_kind() -> None:
    """Whether the recipe has the section, or the word comes before or after the section's other values."""
    source = "guidance.source=annotated"
    for overrides in (["guidance=area", source], [source, "guidance=area"], ["guidance.kind=area", source]):
        guidance = load_recipe(PretrainConfig, "synthetic_pretrain_tiny", overrides).guidance
        assert (guidance.kind, guidance.source, guidance.max_share) == ("area", "annotated", 0.4)
    assert load_recipe(PretrainConfig, "synthetic_pretrain_tiny", ["mask=tube"]).mask.kind == "tube"


def test_areas_leave_room_for_the_rule() -> None:
    few = ["guidance=area", "mask=motion", "mask.inside_ratio=0.5"]
    with pytest.raises(ConfigError, match=r"max_share must be at most 0.2, so that 90% of all tubes and 50% .*got 0.4"):
        load_recipe(PretrainConfig, "synthetic_pretrain_tiny", few)
    assert load_recipe(PretrainConfig, "synthetic_pretrain_tiny", [*few, "guidance.max_share=0.2"])
