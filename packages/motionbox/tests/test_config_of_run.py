from motionbox.config import config_of_run, load_config


def test_the_config_of_another_version_is_read():
    values = load_config("tuned").model_dump(mode="json")
    del values["areas"]
    values["boxes"]["growth"] = {"reach": 2.75, "trim_share": 0.005}
    values["store"]["map_scale"] = 4
    config = config_of_run(values)
    assert config.boxes == load_config("tuned").boxes
    assert config.areas == load_config("tuned").areas
    assert config.store.map_scale == 4
