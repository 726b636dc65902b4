"""Published figures, for the part of the table that is not measured here. Every row names its source.

Those of other systems are taken as MOFO's paper cites them (arXiv 2308.12447, table 1), where the original paper is
named; it does not cite MGMAE, whose figures are its own authors'. The paper's table has MOFO with masks and MCA
together; each alone stands in the README of its authors' repository.
"""

from __future__ import annotations

from dataclasses import dataclass

MOFO_PAPER = "arXiv 2308.12447, table 1"
MGMAE_ZOO = "arXiv 2308.10794 (ICCV 2023); both figures as its authors' model zoo lists them (MCG-NJU/MGMAE)"
MOFO_README = "README of the authors' repository of arXiv 2308.12447; not in the paper"


@dataclass(frozen=True)
class CitedRow:
    """One published row, top-1 and top-5 in per cent.

    Attributes:
        title: System and its network.
        source: Where the figures stand.
        row: The row of our table that repeats it, or empty.
        label_top1: SSV2.
        label_top5: SSV2.
        verb_top1: EPIC-100.
        noun_top1: EPIC-100.
        action_top1: EPIC-100.
    """

    title: str
    source: str
    row: str = ""
    label_top1: float | None = None
    label_top5: float | None = None
    verb_top1: float | None = None
    noun_top1: float | None = None
    action_top1: float | None = None

    def figure(self, metric: str) -> float | None:
        """Return a figure by the name that measured rows use, None where it is not published."""
        value: float | None = getattr(self, metric, None)
        return value


def _cited(arxiv: str) -> str:
    return f"{arxiv}, as cited in {MOFO_PAPER}"


CITED_ROWS = (
    CitedRow("VIMPAC, ViT-L", _cited("arXiv 2106.11250"), label_top1=68.1),
    CitedRow("BEVT, Swin-B", _cited("arXiv 2112.01529"), label_top1=70.6),
    CitedRow("ST-MAE, ViT-L", _cited("arXiv 2205.09113"), label_top1=72.1),
    CitedRow("OmniMAE, ViT-B", _cited("arXiv 2206.08356"), label_top1=69.5, action_top1=39.3),
    CitedRow(
        "Omnivore, Swin-B",
        _cited("arXiv 2201.08377"),
        label_top1=71.4,
        label_top5=93.5,
        verb_top1=69.5,
        noun_top1=61.7,
        action_top1=49.9,
    ),
    CitedRow("MGMAE, ViT-B, 800 epochs", MGMAE_ZOO, label_top1=71.0, label_top5=93.1),
    CitedRow("MGMAE, ViT-B, 2,400 epochs", MGMAE_ZOO, label_top1=72.3, label_top5=93.5),
    CitedRow("VideoMAE, ViT-B", _cited("arXiv 2203.12602"), "videomae", 70.8, 92.4, 71.6, 66.0, 53.2),
    CitedRow("MOFO masks only, ViT-B", MOFO_README, "mofo_masks", 72.7, 94.2, 73.0, 67.1, 54.1),
    CitedRow("MOFO MCA only, ViT-B", MOFO_README, "mofo_mca", 74.7, 95.0, 74.0, 68.0, 54.5),
    CitedRow("MOFO masks and MCA, ViT-B", MOFO_PAPER, "mofo", 75.5, 95.3, 74.2, 68.1, 54.5),
)
