"""Makes zip.pth and legacy.pth beside it: the two forms of torch.save, a few numbers and an optimizer's.

Type: python tests/golden/checkpoints/make_checkpoints.py (needs torch; the legacy form is that of torch before 1.6)
"""

from __future__ import annotations

from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def main() -> None:
    base = torch.arange(12.0)
    tree = {
        "model": {"first": base[2:8], "second": base.view(3, 4).t(), "half": base.half(), "counter": torch.tensor(7)},
        "optimizer": {"momentum": torch.zeros(2)},
    }
    torch.save(tree, HERE / "zip.pth")
    torch.save(tree, HERE / "legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
