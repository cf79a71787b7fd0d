"""A short run of the image fuzzer, and what it stands on: the same cases for ever, and files that are whole."""

from sp_core.images import open_image
from tests.fuzz import images as fuzz


def test_mutated_images_give_a_picture_or_a_sentence(monkeypatch):
    monkeypatch.setattr(fuzz.decoding_process, "DEADLINE", 60.0)
    monkeypatch.delenv("SP_REAL_DATA", raising=False)
    fuzz.seeds.cache_clear()
    state = fuzz.run(0, 200, {})
    fuzz.seeds.cache_clear()
    assert "failed" not in state, state["failed"]
    assert state["pictures"] > 20 and state["sentences"] > 20, state
    assert state["next"] == 200 == sum(state.get(kind, 0) for kind in ("pictures", "sentences", "large", "memory"))


def test_a_case_is_its_number_and_what_is_mutated_is_whole():
    assert fuzz.case(7) == fuzz.case(7) != fuzz.case(8)
    for name, data in fuzz.made():
        assert min(open_image(data).size) > 0, name


def test_a_mended_png_is_read_again():
    name, data = next(row for row in fuzz.made() if row[0] == "PNG 2")
    broken = data[:-8] + b"XXXX" + data[-4:]
    assert fuzz.mended(data) == data and fuzz.mended(broken) != broken, name
