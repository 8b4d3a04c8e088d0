"""`scrfd models`, `info`, `convert`, `bench` and `doctor`, run as commands."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import typer
from networks import CROWDHUMAN, random_net
from typer.testing import CliRunner

from scrfdkit.cli import bench, convert, doctor, info, models
from scrfdkit.errors import ScrfdError
from scrfdkit.model.checkpoint import load, read_header, save
from scrfdkit.model.origin import OFFICIAL_LICENCE
from scrfdkit.weights import EMBEDDED, embedded
from scrfdkit.zoo import ZOO

app = typer.Typer()
app.command("models")(models.command)
app.command("info")(info.command)
app.command("convert")(convert.command)
app.command("bench")(bench.command)
app.command("doctor")(doctor.command)


def run(*words: object) -> str:
    """What a command prints; its error is raised."""
    return str(CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False).stdout)


def run_json(*words: object) -> Any:
    return json.loads(run(*words, "--json"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weight cache."""
    monkeypatch.setenv("SCRFDKIT_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    path = tmp_path / "SCRFD_1G.pth"
    torch.save({"meta": {"epoch": 1}, "state_dict": random_net(ZOO["scrfd_1g"].spec).state_dict()}, path)
    return path


def test_models_lists_every_row() -> None:
    text = run("models")
    for name in ZOO:
        assert f" {name} " in text
    (row,) = [line.split() for line in text.splitlines() if " scrfd_500m_kps " in line]
    assert row == ["scrfd_500m_kps", "0.63", "M", "0.58", "90.97", "88.44", "69.49", "yes", "embedded"]
    (row,) = [line.split() for line in text.splitlines() if " scrfd_1gbn " in line]
    assert row[-6:] == ["0.99", "-", "-", "-", "no", "none"]


def test_models_gives_the_ap_of_the_embedded_weights() -> None:
    text = " ".join(run("models").split())
    assert "not of the embedded ones; these have 88.09 / 85.69 / 65.63 (WIDER FACE val" in text


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_models_on_a_narrow_terminal_drops_columns_and_cuts_no_number(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run("models").splitlines()[: len(ZOO) + 1]
    titles = lines[0].split()
    assert len(titles) == {20: 2, 40: 4, 60: 6, 80: 8, 120: 8}[width]
    if width < 40:
        return
    assert (titles[0], titles[-1]) == ("name", "weights")
    (row,) = [line.split() for line in lines if " scrfd_34g " in line]
    assert row[-2:] == ["85.29", "official"] if width < 80 else row[-3:] == ["85.29", "no", "official"]
    assert not any("…" in line for line in lines)


def damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the installed file were not the one that was shipped."""
    record = dataclasses.replace(EMBEDDED[".onnx"], sha256="0" * 64)
    monkeypatch.setitem(EMBEDDED, ".onnx", record)


def test_models_shows_damaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    damage(monkeypatch)
    text = run("models")
    (row,) = [line.split() for line in text.splitlines() if " scrfd_500m_kps " in line]
    assert row[-1] == "damaged"
    assert "the file was changed, reinstall scrfdkit" in " ".join(text.split())
    (found,) = [row for row in run_json("models") if row["problem"]]
    assert (found["name"], found["weights"], found["embedded"]) == ("scrfd_500m_kps", None, False)


def test_doctor_reports_damaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    damage(monkeypatch)
    for words in (["doctor"], ["doctor", "--json"]):
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 1
        assert "the file was changed, reinstall scrfdkit" in " ".join(result.stdout.split())
        assert "onnxruntime" in result.stdout
    report = json.loads(result.stdout)
    assert list(report["weights"]["problems"]) == ["scrfd_500m_kps"]
    assert "sha256" in report["detector"]["error"]


def test_models_as_json() -> None:
    rows = {row["name"]: row for row in run_json("models")}
    assert list(rows) == list(ZOO)
    assert rows["scrfd_34g"]["params"] == 9_802_737
    assert rows["scrfd_34g"]["gflops"] == pytest.approx(34.1433822)
    assert rows["scrfd_34g"]["published"] == {"easy": 96.06, "medium": 94.92, "hard": 85.29}
    assert rows["scrfd_34g"]["weights"] is None
    assert Path(rows["scrfd_500m_kps"]["weights"]).is_file()
    assert rows["scrfd_10g_kps"]["official"][0]["name"] == "SCRFD_10G_KPS.pth"


def test_info_of_a_name() -> None:
    text = run("info", "scrfd_2.5g")
    (row,) = [line.split() for line in text.splitlines() if " C3 " in line]
    assert row[1:-1] == ["C3", "│", "199,200", "│", "951.1", "│", "958.9", "│", "37.9%"]
    assert "671,761" in text
    assert "weights 2.6 MiB" in text


def test_info_at_several_sizes() -> None:
    text = run("info", "scrfd_2.5g", "--size", "640x480", "--size", "320X320")
    assert "2.532" in text
    assert "320x320" in text
    data = run_json("info", "scrfd_2.5g", "--size", "640x480", "--size", "320x320")
    assert [(c["width"], c["height"]) for c in data["costs"]] == [(640, 480), (320, 320)]
    assert data["costs"][0]["flops"] == 2_532_178_200
    assert data["file"] is None


def test_info_of_a_weight_file(tmp_path: Path) -> None:
    net = random_net(CROWDHUMAN)
    made = save(
        tmp_path / "w.safetensors", net, CROWDHUMAN, name="people", metrics={"hard": 70}, licence="mine", source="here"
    )
    text = run("info", tmp_path / "w.safetensors")
    for part in ("people", "mine", "here", "metrics", "hard", "70", made.sha256, "kept"):
        assert part in text
    data = run_json("info", tmp_path / "w.safetensors")
    assert data["name"] == "people"
    assert data["spec"] == json.loads(CROWDHUMAN.to_json())
    assert data["costs"][0]["params"] == sum(p.numel() for p in net.parameters())


def test_info_of_an_onnx_file() -> None:
    text = run("info", embedded(".onnx"))
    for part in ("scrfd_500m_kps", "input input.1", "tensor(float) ['b', 3, 'h', 'w']", "output kps_32", "631,410"):
        assert part in text
    assert "trained from scratch for scrfdkit" in text


def test_info_of_a_checkpoint(pth: Path) -> None:
    assert run_json("info", pth)["name"] == "scrfd_1g"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("info", "yolo"), "no network is called 'yolo'"),
        (("info", "nothing.onnx"), r"nothing\.onnx: there is no such file"),
        (("info", "scrfd_1g", "--size", "640"), "--size 640: WIDTHxHEIGHT"),
        (("info", "scrfd_1g", "--size", "0x640"), "--size 0x640"),
        (("info", __file__), "not a safetensors file"),
        (("convert", "nothing.pth"), r"nothing\.pth: there is no such file"),
        (("convert", __file__), r"only \.pth and \.onnx"),
        (("convert", "x" * 300 + ".pth"), "there is no such file"),
        (("info", "x" * 300 + ".onnx"), "there is no such file"),
        (("info", "x" * 300), "no network is called"),
        (("convert", embedded(".onnx"), "x" * 300 + ".safetensors"), "cannot be written: File name too long"),
        (("bench", "--threads", "100000"), "--threads: 100000 are too many for "),
        (("bench", __file__), r"test_models_info_convert\.py: is not a picture"),
        (("bench", "--json", "/tmp/"), "--json: /tmp/ is a folder"),
        (("bench", "--json", "new/"), "--json: new/ is a folder"),
        (("bench", "--json", "/proc/no/file"), "/proc/no/file: cannot be written"),
        (("bench", "--json", "x" * 300), "cannot be written: File name too long"),
        (("bench", "--device", "gpu"), "--device: 'gpu' is not one of"),
    ],
)
def test_mistakes_are_one_line(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ScrfdError, match=message) as caught:
        run(*words)
    assert "\n" not in str(caught.value)


def test_bench_writes_its_record_instead_of_the_table(tmp_path: Path) -> None:
    words = ("bench", "--repeat", 2, "--warmup", 0, "--size", "128x128", "--json")
    record = json.loads(run(*words, "-"))
    assert [row["input_size"] for row in record["rows"]] == [[128, 128]]
    text = run(*words, tmp_path / "new/out.json")
    assert "milliseconds a picture" in text
    assert json.loads((tmp_path / "new/out.json").read_text())["repeat"] == 2


def test_bench_leaves_nothing_behind_where_it_fails(tmp_path: Path) -> None:
    with pytest.raises(ScrfdError, match="no network is called 'yolo'"):
        run("bench", "--model", "yolo", "--json", tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_info_of_an_onnx_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(ScrfdError, match=r"x\.onnx: onnxruntime cannot load it"):
        run("info", tmp_path / "x.onnx")


def with_metadata(path: Path, **metadata: str) -> Path:
    """The embedded network, saying other things of itself; any change makes it a file that nobody knows."""
    model = onnx.load(str(embedded(".onnx")))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("text", ["no json", "[1]", '"x"', "{", ""])
def test_foreign_metadata_is_only_shown(tmp_path: Path, text: str) -> None:
    path = with_metadata(tmp_path / "net.onnx", metrics=text, spec=text, author="somebody", license="MIT")
    data = run_json("info", path)
    assert data["name"] == "scrfd_500m_kps"
    assert data["file"]["licence"] == "MIT"
    assert data["file"]["metadata author"] == "somebody"
    assert data["file"]["metadata metrics"] == text
    run("convert", path, tmp_path / "out.safetensors")
    assert read_header(tmp_path / "out.safetensors").metrics == {}


def test_convert_takes_over_what_the_file_says(tmp_path: Path) -> None:
    run("convert", embedded(".onnx"), tmp_path / "out.safetensors")
    found, shipped = read_header(tmp_path / "out.safetensors"), read_header(embedded(".safetensors"))
    assert (found.licence, found.source, found.metrics) == (shipped.licence, shipped.source, shipped.metrics)
    assert found.metrics


def test_convert_claims_no_licence_that_it_does_not_know(tmp_path: Path) -> None:
    path = with_metadata(tmp_path / "net.onnx")
    text = run("convert", path, tmp_path / "out.safetensors")
    assert "licence: unknown; the file does not say, and --licence TEXT (with --force) sets it" in text
    found = read_header(tmp_path / "out.safetensors")
    assert (found.licence, found.source) == ("unknown", "net.onnx")
    text = run("convert", path, tmp_path / "out.safetensors", "--force", "--licence", "mine")
    assert "licence: mine\n" in text


@pytest.mark.parametrize(
    ("name", "licence"),
    [("SCRFD_1G.pth", OFFICIAL_LICENCE), ("scrfd_1g.PTH".lower(), OFFICIAL_LICENCE), ("SCRFD_10G.pth", "unknown")],
)
def test_an_official_name_counts_only_for_its_own_network(pth: Path, tmp_path: Path, name: str, licence: str) -> None:
    (tmp_path / "other").mkdir()
    run("convert", pth.rename(tmp_path / "other" / name), tmp_path / "out.safetensors")
    assert read_header(tmp_path / "out.safetensors").licence == licence


CORE = """
import sys
for name in ("torch", "onnx", "safetensors", "av", "scipy"):
    sys.modules[name] = None  # as if it were not installed
from scrfdkit.cli import main
main()
"""


def core(*words: object) -> subprocess.CompletedProcess[str]:
    """The command as it is installed without any extra."""
    call = [sys.executable, "-c", CORE, *map(str, words)]
    return subprocess.run(call, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("verb", ["info", "convert"])
def test_without_torch_the_extra_is_named(pth: Path, tmp_path: Path, verb: str) -> None:
    for path in (pth, embedded(".onnx")):
        if (verb, path.suffix) == ("info", ".onnx"):
            continue  # which needs none
        done = core(verb, path)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "needs the package torch: pip install 'scrfdkit[torch]'" in done.stderr


def test_without_onnx_files_are_known_by_their_words_or_their_hash(shared: Path) -> None:
    for path, name in (
        (embedded(".onnx"), "scrfd_500m_kps"),
        (shared / "weights/official/scrfd_2.5g.onnx", "scrfd_2.5g"),
        (shared / "weights/official/det_500m.onnx", "scrfd_500m_kps"),
    ):
        done = core("info", path, "--json")
        assert done.returncode == 0, done.stderr
        data = json.loads(done.stdout)
        assert data["name"] == name
        assert data["costs"]


def test_convert_into_the_cache(pth: Path, cache: Path) -> None:
    text = run("convert", pth)
    assert "is scrfd_1g" in text
    assert 'Detector.open("scrfd_1g", runtime="pytorch")' in text
    found = read_header(cache / "scrfd_1g.safetensors")
    assert (found.name, found.fused, found.source) == ("scrfd_1g", False, "SCRFD_1G.pth")
    assert found.licence == OFFICIAL_LICENCE
    assert found.metrics == {}
    (row,) = [row for row in run_json("models") if row["name"] == "scrfd_1g"]
    assert row["weights"] == str(cache / "scrfd_1g.safetensors")


def test_convert_to_a_file_with_a_licence(tmp_path: Path) -> None:
    out = tmp_path / "new" / "mine.safetensors"
    text = run("convert", embedded(".onnx"), out, "--licence", "as trained", "--model", "scrfd_500m_kps")
    assert f"wrote {out}" in text
    net, found = load(out)
    assert (found.licence, found.fused) == ("as trained", True)
    assert [o.shape[1] for o in net(torch.zeros(1, 3, 64, 64))] == [2, 2, 2, 8, 8, 8, 20, 20, 20]


def test_convert_overwrites_only_when_told(pth: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    out.write_text("precious")
    with pytest.raises(ScrfdError, match="is there already; --force overwrites it"):
        run("convert", pth, out)
    assert out.read_text() == "precious"
    run("convert", pth, out, "--force")
    assert read_header(out).name == "scrfd_1g"


def test_convert_needs_a_safetensors_name_and_the_right_network(pth: Path, tmp_path: Path) -> None:
    with pytest.raises(ScrfdError, match=r"must end in \.safetensors"):
        run("convert", pth, tmp_path / "mine.onnx")
    with pytest.raises(ScrfdError, match="as scrfd_10g: the tensors do not fit"):
        run("convert", pth, "--model", "scrfd_10g")


def test_convert_keeps_the_published_ap_of_a_known_file(shared: Path, cache: Path) -> None:
    run("convert", shared / "weights/official/scrfd_2.5g.onnx")
    published = read_header(cache / "scrfd_2.5g.safetensors").metrics["published_wider_face_val"]
    assert published == {"easy": 93.78, "medium": 92.16, "hard": 77.87}
