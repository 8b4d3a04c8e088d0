"""The official configurations as data: one row a network, with published numbers and where its weights are.

Architectures are those of deepinsight/insightface, detection/scrfd/configs/scrfd; published figures are from its
README (WIDER FACE val, single scale, long side 640). Two published figures disagree with the configurations they
stand beside: SCRFD_500M_KPS has 0.63 M parameters and 0.58 GFLOPs, and base_34g has 37.07 GFLOPs.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from scrfdkit.spec import Backbone, Head, ModelSpec, Neck

OFFICIAL_PAGE = "https://github.com/deepinsight/insightface/tree/master/detection/scrfd#pretrained-models"
_PACKS = "https://github.com/deepinsight/insightface/releases/download/v0.7/"


@dataclass(frozen=True)
class Published:
    """Published WIDER FACE val AP in percent."""

    easy: float
    medium: float
    hard: float


@dataclass(frozen=True)
class OfficialFile:
    """A weight file somebody else publishes: never part of this package.

    name: the file's usual name. url: the page or archive that holds it. sha256: None where it could not be checked.
    """

    name: str
    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class ZooEntry:
    """One network: its spec, the reference's configuration name, published AP and official files."""

    name: str
    config: str
    spec: ModelSpec
    published: Published | None = None
    official: tuple[OfficialFile, ...] = ()


def _separable(stem: tuple[int, int], blocks: tuple[int, int, int, int], widths: tuple[int, int, int, int]) -> Backbone:
    return Backbone("separable", stem, blocks, widths)


def _residual(
    base: int, blocks: tuple[int, int, int, int], widths: tuple[int, int, int, int], bottleneck: bool = False
) -> Backbone:
    return Backbone("bottleneck" if bottleneck else "basic", (base // 2, base // 2, base), blocks, widths)


def _head(
    depth: int, channels: int, groups: int = 0, *, dw: bool = False, scale: bool = True, kps: bool = False
) -> Head:
    """Group norm goes with one shared tower, batch norm with one a level, in every official configuration."""
    return Head(
        depth=depth,
        channels=channels,
        norm="gn" if groups else "bn",
        groups=groups,
        shared=bool(groups),
        depthwise=dw,
        scale=scale,
        num_keypoints=5 if kps else 0,
    )


def _pth(name: str) -> OfficialFile:
    return OfficialFile(name, OFFICIAL_PAGE)


_B_500M = _separable((16, 16), (2, 3, 2, 6), (40, 72, 152, 288))
_B_1G = _separable((32, 48), (3, 2, 1, 5), (48, 160, 216, 312))
_B_2_5G = _residual(24, (3, 5, 3, 2), (24, 48, 48, 80))
_B_10G = _residual(56, (3, 4, 2, 3), (56, 88, 88, 224))

_ROWS = (
    ZooEntry(
        "scrfd_500m",
        "scrfd_500m",
        ModelSpec(_B_500M, Neck(16), _head(2, 64, 16, dw=True)),
        Published(90.57, 88.12, 68.51),
        (
            _pth("SCRFD_500M.pth"),
            OfficialFile(
                "scrfd_500m.onnx",
                OFFICIAL_PAGE,
                "372ec832de65e8de9830894800bf2fd6a4807561e4188c9604480d158614447e",
            ),
        ),
    ),
    ZooEntry(
        "scrfd_500m_kps",
        "scrfd_500m_bnkps",
        ModelSpec(_B_500M, Neck(16), _head(2, 64, dw=True, scale=False, kps=True)),
        Published(90.97, 88.44, 69.49),
        (
            _pth("SCRFD_500M_KPS.pth"),
            OfficialFile(
                "scrfd_500m_kps.onnx",
                OFFICIAL_PAGE,
                "a3562ef62592bf387f6ef19151282ac127518e51c77696e62e0661bee95ba1ad",
            ),
            OfficialFile(
                "det_500m.onnx",
                _PACKS + "buffalo_s.zip",
                "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a",
            ),
        ),
    ),
    ZooEntry(
        "scrfd_1g",
        "scrfd_1g",
        ModelSpec(_B_1G, Neck(24), _head(2, 96, 8, dw=True)),
        Published(92.38, 90.57, 74.80),
        (
            _pth("SCRFD_1G.pth"),
            OfficialFile(
                "scrfd_1g.onnx",
                OFFICIAL_PAGE,
                "fed8414314326bb875e2a8a19da9a75e1ca604980dda195c61f7308115108795",
            ),
        ),
    ),
    ZooEntry("scrfd_1gbn", "scrfd_1gbn", ModelSpec(_B_1G, Neck(24), _head(2, 96, dw=True))),
    ZooEntry(
        "scrfd_1.3g",
        "scrfd_1.3g",
        ModelSpec(_residual(16, (3, 5, 3, 2), (16, 32, 40, 72)), Neck(24), _head(2, 48, 16)),
    ),
    ZooEntry(
        "scrfd_2.5g",
        "scrfd_2.5g",
        ModelSpec(_B_2_5G, Neck(24), _head(2, 64, 16)),
        Published(93.78, 92.16, 77.87),
        (
            _pth("SCRFD_2.5G.pth"),
            OfficialFile(
                "scrfd_2.5g.onnx",
                OFFICIAL_PAGE,
                "c5ace6e90b683f74a7736e917fed766308809145f1fe73e829700da7462b10e8",
            ),
        ),
    ),
    ZooEntry(
        "scrfd_2.5g_kps",
        "scrfd_2.5g_bnkps",
        ModelSpec(_B_2_5G, Neck(24), _head(2, 64, kps=True)),
        Published(93.80, 92.02, 77.13),
        (
            _pth("SCRFD_2.5G_KPS.pth"),
            OfficialFile(
                "scrfd_2.5g_kps.onnx",
                OFFICIAL_PAGE,
                "81a65738b3829e5265fe2636cdee7781dbb8db75ff14b88f3a0a9121eb0ecd68",
            ),
            OfficialFile("det_2.5g.onnx", _PACKS + "buffalo_m.zip"),
        ),
    ),
    ZooEntry(
        "scrfd_10g",
        "scrfd_10g",
        ModelSpec(_B_10G, Neck(56), _head(3, 80, 16)),
        Published(95.16, 93.87, 83.05),
        (_pth("SCRFD_10G.pth"),),
    ),
    ZooEntry(
        "scrfd_10g_kps",
        "scrfd_10g_bnkps",
        ModelSpec(_B_10G, Neck(56), _head(3, 80, kps=True)),
        Published(95.40, 94.01, 82.80),
        (
            _pth("SCRFD_10G_KPS.pth"),
            OfficialFile("det_10g.onnx", _PACKS + "buffalo_l.zip"),
            OfficialFile("scrfd_10g_bnkps.onnx", _PACKS + "antelopev2.zip"),
        ),
    ),
    ZooEntry(
        "scrfd_34g",
        "scrfd_34g",
        ModelSpec(_residual(56, (17, 16, 2, 8), (56, 56, 144, 184), bottleneck=True), Neck(128), _head(2, 256, 32)),
        Published(96.06, 94.92, 85.29),
        (_pth("SCRFD_34G.pth"),),
    ),
    ZooEntry(
        "base_500m",
        "base_500m",
        ModelSpec(_separable((8, 16), (2, 2, 6, 3), (32, 64, 128, 256)), Neck(32), _head(2, 80, 16, dw=True)),
        Published(90.38, 87.05, 66.68),
    ),
    ZooEntry(
        "base_1g",
        "base_1g",
        ModelSpec(_separable((16, 16), (3, 3, 7, 3), (32, 64, 128, 256)), Neck(64), _head(2, 128, 16, dw=True)),
    ),
    ZooEntry(
        "base_1.3g",
        "base_1.3g",
        ModelSpec(_residual(16, (2, 2, 2, 2), (16, 32, 64, 128)), Neck(32), _head(2, 64, 16)),
    ),
    ZooEntry(
        "base_2.5g",
        "base_2.5g",
        ModelSpec(_residual(16, (3, 4, 6, 3), (16, 32, 64, 128)), Neck(48), _head(2, 96, 16)),
        Published(93.21, 91.11, 74.47),
    ),
    ZooEntry(
        "base_10g",
        "base_10g",
        ModelSpec(_residual(32, (3, 4, 6, 3), (32, 64, 128, 256)), Neck(128), _head(2, 160, 32)),
        Published(94.69, 92.90, 80.42),
    ),
    ZooEntry(
        "base_34g",
        "base_34g",
        ModelSpec(_residual(64, (3, 8, 4, 3), (64, 128, 256, 512), bottleneck=True), Neck(128), _head(2, 256, 32)),
        Published(95.64, 94.22, 84.02),
    ),
)

ZOO = MappingProxyType({row.name: row for row in _ROWS})
"""Every official network by name, smallest first within its family."""

ALIASES = MappingProxyType(
    {row.config: row.name for row in _ROWS if row.config != row.name}
    | {"det_500m": "scrfd_500m_kps", "det_2.5g": "scrfd_2.5g_kps", "det_10g": "scrfd_10g_kps"}
)
"""Other names people use: the reference's configuration names and the file names of InsightFace's model packs."""


def find(name: str) -> ZooEntry:
    """The row called `name`, or by one of its aliases, upper or lower case. Raises ValueError listing the names."""
    key = name.lower()
    key = ALIASES.get(key, key)
    if key not in ZOO:
        raise ValueError(f"no network is called {name!r}; known are {', '.join(ZOO)} (`scrfd models` lists them)")
    return ZOO[key]
