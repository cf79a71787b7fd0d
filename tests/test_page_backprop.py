"""The backprop page, run by Streamlit's test driver."""

import pytest

from pages.backprop_views import captums, second_opinion
from sp_core import second_opinion as second
from tests import driver
from tests.driver import complaints


def opened(**state):
    app = driver.opened("backprop.py", **{"net": "bundled:textures-alexnet", **state})
    assert complaints(app) == []
    return app


def words(app):
    return " ".join(element.value for element in [*app.markdown, *app.caption, *app.info])


def test_the_default_view_is_the_predicted_class():
    app = opened()
    text = words(app)
    assert "Guided backprop" in text
    assert "5 rectifiers" in text
    assert "mostly edge recovery" in app.warning[0].value


def test_a_unit_of_the_first_layer_has_the_gradient_only_and_says_why():
    app = opened(of="unit", layer="features.0", channel=3)
    text = words(app)
    assert "Guided backprop is undefined here" in text
    assert "Grad-CAM is undefined here" in text
    assert "**0 rectifiers**" in text
    assert not [element for element in app.markdown if element.value == "**Deconvnet**"]


def test_another_class_changes_the_target():
    app = opened(of="class")
    app.selectbox(key="class").select_index(4).run()
    assert app.selectbox(key="class").value.partition(" · ")[2] in words(app)


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "occlusion"])
def test_slow_methods_wait_for_their_button_and_then_show_the_map(method):
    app = opened(method=method)
    assert "Press Run" in words(app)
    app.button(key="live-attribution-go").click().run()
    text = words(app)
    assert "Press Run" not in text
    assert "Source:" in text
    if method == "integrated_gradients":
        assert "completeness error" in text


def test_a_map_is_tested():
    app = opened(method="grad_cam", test=True)
    text = words(app)
    assert "Area under insertion" in text
    assert "Petsiuk et al. 2018" in text


def test_deep_lift_says_what_it_adds_up_to_and_whose_it_is():
    app = opened(method="deep_lift")
    text = words(app)
    assert "completeness error" in text
    assert "DeepLift is this project's own" in text
    assert app.segmented_control(key="baseline").value == "blurred"
    assert "Press Run" not in text


CAPTUM = {
    "agrees": ("bundled:textures-alexnet", "guided", "GuidedBackprop is the same as ours"),
    "is the gradient": ("bundled:textures-resnet", "guided", "GuidedBackprop is the plain gradient, without a warning"),
    "misses something": ("bundled:textures-resnet", "deep_lift", "DeepLift differs from ours"),
    "raises": ("torchvision:resnet18@none", "deep_lift", "DeepLift raises RuntimeError"),
    "alone": ("torchvision:efficientnet_b0@none", "guided", "GuidedBackprop gives the plain gradient"),
}


@pytest.mark.parametrize("case", CAPTUM)
def test_captums_own_stands_beside_ours_when_it_is_asked_for(case, monkeypatch):
    source, method, said = CAPTUM[case]
    asked = []
    monkeypatch.setattr(captums, "captums", lambda *a, **more: asked.append(a) or second.captums(*a, **more))
    app = opened(net=source, method=method)
    assert asked == []
    app.toggle(key="captum").set_value(True).run()
    assert complaints(app) == []
    assert len(asked) == 1
    text = words(app).replace("\\", "")
    assert said in text
    assert f"captum {second.version('captum')}'s" in text
    pictures = [element.proto.body for element in app.get("html") if "captum" in element.proto.body]
    assert len(pictures) == (case != "raises")
    assert all(("the scale of ours" in picture) == (case != "alone") for picture in pictures)
    app.run()
    assert len(asked) == 1, "the answer is kept"


def test_captum_waits_for_ours_and_is_not_asked_what_has_no_answer():
    app = opened(method="occlusion", captum=True)
    assert "Occlusion" not in words(app).replace("Press Run", "")
    app.button(key="live-attribution-go").click().run()
    assert "'s Occlusion" in words(app)
    text = words(opened(method="grad_cam", captum=True, of="unit", layer="features.0", channel=3))
    assert text.count("Grad-CAM is undefined here") == 1
    assert "LayerGradCam" not in text


@pytest.mark.parametrize("written", ["lrp", "LRP"])
def test_a_link_names_a_method_by_its_label_or_its_key(written):
    app = driver.opened(net="bundled:textures-alexnet")
    app.query_params["method"] = written
    app.switch_page("pages/backprop.py").run()
    assert complaints(app) == []
    assert app.selectbox(key="method").value == "lrp"
    assert "of which the biases hold" in words(app)


def test_layers_that_keep_their_channels_last_are_not_offered():
    app = opened(net="torchvision:convnext_tiny@none", of="unit")
    picker = app.selectbox(key="layer")
    assert "features.1.0.block.0" in picker.options
    assert "features.1.0.block.2" not in picker.options
    assert "90 of 202 layers are left out: they keep their channels last" in picker.help


def test_lrp_says_by_name_where_it_does_not_apply():
    app = opened(net="torchvision:efficientnet_b0@none", method="lrp")
    assert "LRP does not apply to efficientnet_b0: " in words(app)
    assert "here Sigmoid" in words(app)


def test_lrp_says_what_it_adds_up_to_and_whose_it_is():
    text = words(opened(net="bundled:textures-resnet", method="lrp"))
    assert "of which the biases hold" in text
    assert "LRP is this project's own" in text


def test_the_record_of_captum_is_said_in_words():
    guided, lift = second_opinion.on_guided, second_opinion.on_deep_lift
    assert "the **plain gradient**, without a warning" in guided("torchvision:mobilenet_v2")
    assert "some of the rectifiers only" in guided("torchvision:densenet121")
    assert "is the same as ours" in guided("torchvision:resnet18")
    assert guided("zoo:lenet-1998") is None
    assert guided(None) is None
    assert "raises an error" in lift("torchvision:resnet18")
    assert "is complete on this architecture too" in lift("torchvision:mnasnet0_5")
    relevance = second_opinion.on_lrp
    assert "is the same on this architecture" in relevance("torchvision:vgg11")
    assert "raises an error" in relevance("torchvision:mobilenet_v2")
    assert "times its largest value here, without a warning" in relevance("torchvision:densenet121")
    assert "captum" not in relevance(None)
    assert "without a warning" in lift("torchvision:vgg11")
    assert "captum" not in lift(None)
    rows = {name: second_opinion._row(name, row) for name, row in _rows().items()}
    assert len(rows) >= 60
    assert rows["googlenet"]["captum's guided backprop is"] == "plain gradient"
    assert rows["googlenet"]["captum from the plain gradient"] == "0"
    assert all(float(row["ours from the reference"]) < 1e-5 for row in rows.values())


def _rows():
    return second_opinion.record()["details"]["networks"]


def test_the_page_shows_the_whole_record():
    table = opened().dataframe[-1].value
    assert set(table["network"]) == set(_rows())


def test_without_the_record_nothing_is_said(monkeypatch, tmp_path):
    second_opinion.record.cache_clear()
    monkeypatch.setattr(second_opinion, "RECORD", tmp_path / "none.json")
    assert second_opinion.on_guided("torchvision:resnet18") is None
    assert "captum" not in second_opinion.on_deep_lift("torchvision:resnet18")
    second_opinion.record.cache_clear()
