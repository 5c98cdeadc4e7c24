"""`python -m minicnn.look`: what it writes, and what it says of what cannot be used."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from minicnn import checkpoint, layers, models
from minicnn.look.__main__ import main
from minicnn.look.subject import IMAGENET_MEAN, IMAGENET_STD, class_number, open_subject


class Tiny(models.Model):
    """Two convolutions, one with BatchNorm, and a linear layer."""

    def __init__(self, num_classes: int = 3, in_channels: int = 3, image_size: int = 8):
        self.conv1 = layers.Conv2d(in_channels, 4, 3, pad=1)
        self.pool = layers.MaxPool(2)
        self.conv2 = layers.Conv2d(4, 6, 3, pad=1, bias=False)
        self.bn2 = layers.BatchNorm(6)
        self.fc = layers.Linear(6, num_classes)

    def forward(self, x):
        x = self.pool(self.conv1.relu(x))
        return self.fc(self.bn2.relu(self.conv2(x)).mean(axis=(1, 2)))


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
    """`tiny` is a network's name."""
    monkeypatch.setitem(models._BUILDERS, "tiny", Tiny)


def save(path, model):
    checkpoint.write(path, model.state_dict(), {"model": json.dumps(model.config)})


@pytest.fixture
def folder(tmp_path):
    """An image folder of three classes, whose names say the colour."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for c, name in enumerate(["n1_red", "n2_green", "n3_blue"]):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(2):
                image = rng.integers(0, 80, (20, 16, 3))
                image[..., c] += 150
                Image.fromarray(image.astype(np.uint8)).save(tmp_path / "data" / split / name / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path, folder):
    """A run folder, as far as a look goes into it."""
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "last.safetensors", models.build("tiny"))
    config = {"data": str(folder), "image_size": 8, "skip_corrupt": False}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def look(*arguments):
    return main([str(argument) for argument in arguments])


def test_all_pictures_and_the_page(run, folder, tmp_path, capsys):
    assert look(run, "--image", folder / "val" / "n2_green" / "1.png", "--out", tmp_path / "out") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "filters.png", "gradcam.png", "index.html", "maps-relu_1.png", "maps-relu.png", "network.svg",
        "occlusion.png", "projections-relu_1.png", "projections-relu.png", "responses.png",
    }  # fmt: skip
    for name in names:
        if name.endswith(".png"):
            assert np.asarray(Image.open(tmp_path / "out" / name).convert("RGB")).std() > 1
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert page.count('<img src="data:image/') == 9 and "tiny has no parallel branches." in page
    assert "A trained network has edges of all directions" in page and "x (1, H, W, C)" not in page
    assert page.count('<p class="how">Source') == 6 and "arXiv:1610.02391" in page
    assert "n2_green (the image&#x27;s own)" in page
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + 10 and lines[-1] == str(tmp_path / "out" / "index.html")
    assert sum(float(line.split()[-1]) for line in lines[:3]) == pytest.approx(1, abs=0.002)


def test_some_parts_of_one_layer_and_unit(run, tmp_path, capsys):
    out = tmp_path / "out"
    some = ("--only", "maps,projections,gradcam", "--layer", "conv2", "--unit", 5)
    assert look(run, "--image", "test:3", "--out", out, *some) == 0
    assert {path.name for path in out.iterdir()} == {
        "maps-conv2.png", "projections-conv2.png", "gradcam.png", "index.html",
    }  # fmt: skip
    page = (out / "index.html").read_text("utf-8")
    assert "conv2, 4×4×6; channel 5." in page and "conv2; unit 5." in page and "in conv2, a map of 4×4" in page


def test_weights_without_a_run_are_taken_for_imagenets(tmp_path, folder):
    save(tmp_path / "alone.safetensors", models.build("tiny"))
    file = folder / "val" / "n1_red" / "0.png"
    subject = open_subject(str(tmp_path / "alone.safetensors"), str(file))
    assert subject.classes == ("0", "1", "2") and subject.why == "the likeliest, for the network"
    pixels = np.asarray(Image.open(file).resize((8, 8), Image.Resampling.BILINEAR, box=(0, 2, 16, 18)))
    assert np.array_equal(subject.picture, pixels)
    expected = (pixels / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(subject.x[0], expected, atol=1e-5)
    assert subject.others.shape == (1, 8, 8, 3)


def test_weights_may_say_themselves_how_images_are_prepared(tmp_path, folder):
    model, file = models.build("tiny"), folder / "val" / "n1_red" / "0.png"
    facts = {"classes": ["a", "b", "c"], "mean": [0.5, 0.25, 0], "std": [0.5, 0.5, 2]}
    metadata = {"model": json.dumps(model.config), **{key: json.dumps(value) for key, value in facts.items()}}
    checkpoint.write(tmp_path / "published.safetensors", model.state_dict(), metadata)
    subject = open_subject(str(tmp_path / "published.safetensors"), str(file), of="b")
    assert subject.classes == ("a", "b", "c") and subject.label == 1
    expected = (subject.picture / 255 - facts["mean"]) / facts["std"]
    np.testing.assert_allclose(subject.x[0], expected, atol=1e-5)


def test_an_image_is_prepared_as_its_data_set_is(run, folder):
    of_file = open_subject(str(run), str(folder / "val" / "n3_blue" / "0.png"))
    of_set = open_subject(str(run), "test:4")
    assert np.array_equal(of_file.x, of_set.x) and of_file.label == of_set.label == 2
    assert of_set.others.shape == (6, 8, 8, 3) and np.array_equal(of_set.others[4:5], of_set.x)
    assert np.array_equal(open_subject(str(run), "train:1").x, open_subject(str(run), "train:1").x)
    assert not np.array_equal(open_subject(str(run), "train:4").x, of_set.x)


def test_the_class_of_a_file_is_that_of_its_folder(run, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)  # the same folder by another name
    assert open_subject(str(run), str(tmp_path / "link" / "train" / "n2_green" / "0.png")).label == 1
    (tmp_path / "n3_blue").mkdir()
    for name, why in (("n3_blue/own.png", "the image's own"), ("own.png", "the likeliest, for the network")):
        Image.new("RGB", (9, 9), (200, 10, 10)).save(tmp_path / name)
        assert open_subject(str(run), str(tmp_path / name)).why == why


def test_a_grey_network_sees_a_colour_file_in_grey(tmp_path, folder):
    grey = tmp_path / "grey.npz"
    x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1)).astype(np.uint8)
    np.savez(grey, x_train=x, y_train=np.arange(6) % 3, x_test=x, y_test=np.arange(6) % 3)
    save(tmp_path / "grey.safetensors", models.build("tiny", 3, 1))
    subject = open_subject(str(tmp_path / "grey.safetensors"), str(folder / "val" / "n1_red" / "0.png"), spec=str(grey))
    assert subject.x.shape == (1, 8, 8, 1) and subject.picture.shape == (8, 8, 3)
    assert (subject.picture[..., 0] == subject.picture[..., 2]).all()


def test_classes_by_name_part_of_a_name_or_number():
    classes = ("n1_church", "n2_french_horn", "n3_horn")
    assert class_number("n3_horn", classes) == 2
    assert class_number("French", classes) == 1
    assert class_number("0", classes) == 0
    with pytest.raises(ValueError, match="unknown class 'horn': did you mean n2_french_horn or n3_horn"):
        class_number("horn", classes)
    with pytest.raises(ValueError, match="unknown class 'xyz': choose from n1_church, n2_french_horn, n3_horn"):
        class_number("xyz", classes)


def test_the_class_asked_about(run):
    assert open_subject(str(run), "test:0").label == 0
    subject = open_subject(str(run), "test:0", of="blue")
    assert (subject.label, subject.why) == (2, "asked for")


def arguments(tmp_path, run, folder):
    """What cannot be looked at, and why."""
    image = folder / "val" / "n1_red" / "0.png"
    text, file, alone = tmp_path / "text.png", tmp_path / "file", tmp_path / "alone.safetensors"
    text.write_text("no image")
    file.write_text("")
    save(alone, models.build("tiny", 3, 1))
    return [
        ((tmp_path / "nowhere", "--image", image), f"{tmp_path / 'nowhere'}: no such run folder or file"),
        ((run, "--image", text), f"{text}: damaged or not of its format"),
        ((run, "--image", tmp_path / "none.png"), f"{tmp_path / 'none.png'}: No such file"),
        ((run, "--image", "test:6"), "test:6: data has the test images 0 to 5"),
        ((alone, "--image", "test:0"), "test:0: needs a data set; name one with --data"),
        ((alone, "--image", image), f"{alone}: nothing says how its images were normalised"),
        (
            (run, "--image", image, "--data", "bundled"),
            f"{run}: tiny was trained for 3 classes and 3 channels, bundled",
        ),
        ((run, "--image", image, "--layer", "conv3"), "unknown layer 'conv3': did you mean conv"),
        (
            (run, "--image", image, "--layer", "conv2", "--unit", 6),
            "layer 'conv2' has units 0 to 5, there is no unit 6",
        ),
        ((run, "--image", image, "--unit", 6), "--unit needs --layer"),
        ((run, "--image", image, "--class", "gren"), "unknown class 'gren': did you mean n2_green"),
        ((run, "--image", image, "--square", 9), "--square 9 is larger than the image that the network sees, 8 pixels"),
        ((run, "--image", image, "--out", file), f"{file}: exists and is not a folder"),
        ((run, "--image", image, "--only", "maps", "--layer", "fc"), "layer 'fc' makes no map but (3,) numbers"),
    ]


def test_errors_are_one_line_and_leave_nothing(run, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = arguments(tmp_path, run, folder)
    for given, message in cases:
        assert look(*given) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(message) and captured.err.count("\n") == 1
    assert not any((tmp_path / "look").rglob("*.*"))


def test_unknown_parts_are_said(run, capsys):
    with pytest.raises(SystemExit) as end:
        look(run, "--image", "test:0", "--only", "filters,ocklusion")
    assert end.value.code == 2
    assert "unknown part 'ocklusion': did you mean occlusion?" in capsys.readouterr().err


def test_parts_come_in_the_order_asked_for(run, tmp_path):
    assert look(run, "--image", "test:0", "--out", tmp_path / "out", "--only", "gradcam,filters") == 0
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert page.index("<h2>Grad-CAM") < page.index("<h2>First-layer filters")
