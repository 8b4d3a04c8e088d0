from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scrfdkit import weights
from scrfdkit.atomic import sha256
from scrfdkit.errors import WeightError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SCRFDKIT_WEIGHTS", str(folder))
    return folder


def test_embedded_files_match_their_records() -> None:
    for suffix, record in weights.EMBEDDED.items():
        path = weights.embedded(suffix)
        assert path.name == record.file
        assert sha256(path) == record.sha256


def test_changed_embedded_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "assets"
    shutil.copytree(weights.embedded().parent, copy)
    monkeypatch.setattr(weights, "files", lambda _: tmp_path)
    assert weights.embedded().is_relative_to(copy)
    data = bytearray(weights.embedded().read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "scrfd_500m_kps.onnx").write_bytes(data)
    with pytest.raises(WeightError, match="sha256"):
        weights.embedded()
    (copy / "scrfd_500m_kps.onnx").unlink()
    with pytest.raises(WeightError, match="reinstall"):
        weights.embedded()


def test_cache_is_searched_by_every_usual_name(cache: Path) -> None:
    cache.mkdir()
    assert weights.locate("scrfd_10g_kps") is None
    for name in ("det_10g.onnx", "scrfd_10g_bnkps.onnx", "scrfd_10g_kps.safetensors", "SCRFD_10G_KPS.pth"):
        path = cache / name
        path.touch()
        for asked in ("scrfd_10g_kps", "det_10g", "SCRFD_10G_KPS", "scrfd_10g_bnkps"):
            assert weights.find(asked) == path
        path.unlink()
    assert weights.locate("scrfd_500m_kps") == weights.embedded()
    (cache / "scrfd_500m_kps.onnx").touch()
    assert weights.locate("scrfd_500m_kps") == cache / "scrfd_500m_kps.onnx"
    assert weights.locate("scrfd_500m_kps", (".safetensors",)) == weights.embedded(".safetensors")
