"""The real server in a real Chromium: every page, the pickers, uploads, links, Stop, two people at once."""

from __future__ import annotations

import re

import pytest
import torch
from PIL import Image
from playwright.sync_api import expect
from server import serving

import sp_core as sp

pytestmark = pytest.mark.browser

PAGES = {
    "": "Structural Priors",
    "card": "Identity card",
    "filters": "First-layer filters",
    "feature_maps": "Feature maps",
    "neighbours": "Neighbours",
    "patches": "Maximally activating patches",
    "backprop": "backprop",
    "synthesis": "Ascent and DeepDream",
    "architectures": "Architectures",
    "receptive_fields": "Receptive",
    "weights": "Weight matrices",
}


@pytest.mark.parametrize("path", PAGES)
def test_every_page_shows_something_true(visitor, address, path):
    person = visitor()
    person.open(f"{address}/{path}")
    person.check()
    assert PAGES[path].lower() in person.main().lower()
    pictures = person.page.locator("[data-testid=stMain] img, [data-testid=stMain] svg.main-svg")
    expect(pictures.first).to_be_attached()  # a page that runs on may add them after its title


CHOICES = {
    "filters": ("layer", "scaling=layer"),
    "patches": ("worst", "which=worst"),
    "backprop": ("a unit of a layer", "of="),
    "synthesis": ("DeepDream", "view=DeepDream"),
    "receptive_fields?net=zoo:cifar-senet18": ("counted", "gates="),  # only where there are gates
    "weights": ("Symmetry", "view=Symmetry"),
}


@pytest.mark.parametrize("path", CHOICES)
def test_a_choice_changes_the_page_and_its_link_opens_the_same_view(visitor, address, path):
    words, parameter = CHOICES[path]
    person = visitor()
    person.open(f"{address}/{path}")
    before = person.main()
    main = person.page.locator("[data-testid=stMain]")
    main.get_by_role("radio", name=words, exact=True).or_(main.get_by_role("button", name=words, exact=True)).click()
    person.page.wait_for_url(re.compile(re.escape(parameter)))
    person.settle()
    person.check()
    after = person.main()
    assert after != before
    other = visitor()
    other.open(person.page.url)
    other.check()
    expect(other.page.locator("[data-testid=stMain] h1")).to_be_visible()
    assert parameter in other.page.url, "the choice was not dropped"


def test_a_deep_link_on_a_fresh_server_opens_the_whole_app(visitor):
    with serving() as fresh:
        person = visitor()
        person.open(f"{fresh}/filters?net=bundled:textures-vgg&channel=3")
        person.check()
        assert "textures-vgg" in person.page.locator("[data-testid=stSidebar]").inner_text()
        assert "Weight matrices" in person.page.locator("[data-testid=stSidebarNav]").inner_text()
        expect(person.page.get_by_role("spinbutton", name="Filter", exact=True)).to_have_value("3")


def test_the_sheet_is_picked_by_mouse_and_by_keyboard_and_the_link_follows(visitor, address):
    person = visitor()
    person.open(f"{address}/filters")
    sheet = person.page.locator(".sheet").first
    box = sheet.bounding_box()
    sheet.click(position={"x": box["width"] - 5, "y": 5})
    person.settle()
    by_mouse = int(re.search(r"channel=(\d+)", person.page.url).group(1))
    assert by_mouse > 0
    person.page.locator(".sheet").first.focus()
    person.page.keyboard.press("ArrowLeft")
    person.page.keyboard.press("Enter")
    person.settle()
    assert int(re.search(r"channel=(\d+)", person.page.url).group(1)) == by_mouse - 1
    person.check()
    other = visitor()
    other.open(person.page.url)
    expect(other.page.get_by_role("spinbutton", name="Filter", exact=True)).to_have_value(str(by_mouse - 1))


def test_uploads_are_shown_and_their_link_says_what_is_missing(visitor, address, tmp_path):
    checkpoint, picture = tmp_path / "mine.pth", tmp_path / "photo.png"
    torch.manual_seed(0)
    state = {f"module.{k}": v for k, v in sp.zoo.create("textures-vgg", classes=6).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, checkpoint)
    Image.effect_mandelbrot((320, 200), (-2, -1, 1, 1), 60).save(picture)
    person = visitor()
    person.open(address)
    inputs = person.page.locator("[data-testid=stSidebar] input[type=file]")
    inputs.nth(0).set_input_files(checkpoint)
    person.page.wait_for_url(re.compile("net=file"))
    person.settle()
    inputs.nth(1).set_input_files(picture)
    person.page.wait_for_url(re.compile("image=upload"))
    person.settle()
    person.check()
    assert "6 classes" in person.page.locator("[data-testid=stSidebar]").inner_text()
    for path in PAGES:
        if path:
            person.page.locator(f"[data-testid=stSidebarNav] a[href$='/{path}']").click()
            person.page.wait_for_url(re.compile(f"/{path}"))
            person.settle()
            person.check()
            assert "net=file" in person.page.url
    other = visitor()
    other.open(person.page.url)
    assert "is not uploaded in this session" in other.main()
    assert "Traceback" not in other.main()


def test_garbage_is_refused_in_a_sentence_and_the_app_goes_on(visitor, address, tmp_path):
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(bytes(range(256)) * 20)
    person = visitor()
    person.open(address)
    person.page.locator("[data-testid=stSidebar] input[type=file]").nth(0).set_input_files(garbage)
    person.page.wait_for_url(re.compile("net=file"))
    person.settle()
    assert person.page.locator("[data-testid=stAlertContentError]").count() > 0
    assert person.page.locator("[data-testid=stException]").count() == 0
    person.open(address)
    person.check()


def test_stop_stops_within_a_step_and_keeps_what_is_there(visitor, address):
    person = visitor()
    person.open(f"{address}/synthesis?steps=512")
    main = person.page.locator("[data-testid=stMain]")
    for label in ("Again", "Run", "Continue"):
        if main.get_by_role("button", name=label).count():
            main.get_by_role("button", name=label).first.click()
            break
    stop = main.get_by_role("button", name="Stop")
    stop.wait_for()
    person.page.wait_for_timeout(1500)
    stop.click()
    main.get_by_role("button", name="Continue").wait_for(timeout=8000)
    person.settle()
    person.check()


def test_two_people_see_their_own_networks(visitor, address):
    one, two = visitor(), visitor()
    one.open(f"{address}/backprop?net=bundled:textures-alexnet")
    two.open(f"{address}/backprop?net=bundled:textures-resnet&texture=5")
    one.page.reload()
    two.page.reload()
    one.settle()
    two.settle()
    for person, name in ((one, "textures-alexnet"), (two, "textures-resnet")):
        person.check()
        assert name in person.main()
    assert "textures-resnet" not in one.main() and "textures-alexnet" not in two.main()


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_small_projector(visitor, address, dark):
    person = visitor(1024, 768, dark=dark)
    for path in PAGES:
        person.open(f"{address}/{path}")
        person.check()
        wide = person.page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
        seen = person.page.evaluate("document.querySelector('[data-testid=stMain]').clientWidth")
        assert wide <= seen + 1, f"{path} is {wide - seen} pixels too wide"
