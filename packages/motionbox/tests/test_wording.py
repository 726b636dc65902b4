"""How messages are put: one line, the nearest name, durations."""

from motionbox.wording import did_you_mean, format_seconds, one_line


def test_a_message_is_one_line_of_characters_that_can_be_written() -> None:
    assert one_line("a\nb\x1b[31m\udcff é") == r"a\nb\x1b[31m\xff é"


def test_durations() -> None:
    assert [format_seconds(s) for s in (None, 3.2, 75, 3725)] == ["-", "0:03", "1:15", "1:02:05"]


def test_the_nearest_name_is_offered_and_nothing_where_none_is_near() -> None:
    assert did_you_mean("extrakt", ["extract", "export"], "see --help") == "did you mean 'extract'?"
    assert did_you_mean("extrakt", {"extract": "motionbox extract"}, "") == "did you mean 'motionbox extract'?"
    assert did_you_mean("xyz", ["extract"], "see --help") == "see --help"
