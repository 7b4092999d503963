"""The dataset card of a copy: Markdown with plots (SVG), and the head that Hugging Face reads. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lake.copies.manifest import PLOTS, Kind, Manifest, Split
from schemas.counting import so_many

_ROW, _LABEL, _WIDTH = 22, 170, 560


def card(manifest: Manifest) -> str:
    """`README.md` of the copy."""
    wanted = manifest.wanted
    asked = ", ".join(
        text
        for text in (
            f"industry {wanted.industry}",
            f"where `{wanted.where}`" if wanted.where else "",
            f"at most {wanted.limit}" if wanted.limit else "",
            "hardest first" if wanted.hardest_first else "",
            f"without {wanted.leave_out} duplicates" if wanted.leave_out else "",
        )
        if text
    )
    splits = "\n".join(
        f"| {split} | {len(_grants(manifest, split))} | {manifest.rows_by_split.get(split, 0)} |" for split in Split
    )
    plots = "\n".join(f"![{name}]({PLOTS}/{name}.svg)\n" for name in manifest.summary.plots)
    return f"""{_head(manifest)}
# {wanted.industry.label}: {so_many(manifest.rows, "training candidate")}

**{manifest.licence}**

A permission can be withdrawn at any time. Whoever has this copy runs `bgbatch lake verify` on it every day: it lists
what must go, and `--erase` removes it. Do not copy images out of this folder.

| split | customers | images |
|---|---:|---:|
{splits}

Customers are split {"/".join(f"{share:g}" for share in wanted.shares)}. One is wholly in one split, and stays in it
in later pulls of these shares.

| | |
|---|---|
| asked for | {asked} |
| taken | {manifest.started_at:%Y-%m-%d %H:%M} UTC, for {manifest.recipient} |
| files | {len(manifest.files)} ({manifest.kind}), {sum(file.bytes for file in manifest.files) / 1e6:.1f} MB |
| the same image again | {manifest.summary.duplicates} |
| looks like another | {manifest.summary.near_duplicates} |
| masks made by | {", ".join(manifest.summary.networks)} |
| pull | `{manifest.pull_id}` |
| state of the lake | `{manifest.lake_state}` |

Masks come from a network, not from people: they are candidates, no truth. Images carry no GPS, serial numbers, maker
notes or texts; their pixels are as they came.

## How they are spread

{plots}
{_taken_back(manifest)}"""


def plot(title: str, bars: Sequence[tuple[str, int]]) -> str:
    """Horizontal bars as an SVG file."""
    most = max(count for _, count in bars)
    height = _ROW * (len(bars) + 1) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LABEL + _WIDTH + 80}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<text x="8" y="16" font-weight="bold">{escape(title.replace("_", " "))}</text>',
    ]
    for place, (label, count) in enumerate(bars, start=1):
        top = _ROW * place + 4
        length = round(_WIDTH * count / max(most, 1), 1)
        lines += [
            f'<text x="{_LABEL - 8}" y="{top + 14}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{_LABEL}" y="{top + 2}" width="{length}" height="{_ROW - 6}" fill="#3b7d6e"/>',
            f'<text x="{_LABEL + length + 6}" y="{top + 14}">{count}</text>',
        ]
    return "\n".join([*lines, "</svg>\n"])


def _head(manifest: Manifest) -> str:
    if manifest.kind is not Kind.HF:
        return ""
    present = [split for split in Split if manifest.rows_by_split.get(split)]
    files = "\n".join(f"      - split: {split}\n        path: data/{split}/*.parquet" for split in present)
    configs = f"configs:\n  - config_name: default\n    data_files:\n{files}\n" if present else ""
    return f"---\nlicense: other\nlicense_name: consent-bound\ntask_categories: [image-segmentation]\n{configs}---\n"


def _grants(manifest: Manifest, split: Split) -> set[str]:
    return {file.grant_id for file in manifest.files if file.split is split}


def _taken_back(manifest: Manifest) -> str:
    if not manifest.taken_back:
        return ""
    lines = "\n".join(
        f"- {each.erased_at:%Y-%m-%d %H:%M} UTC: {so_many(each.rows, 'image')}" for each in manifest.taken_back
    )
    return f"\n## Taken back since\n\nThe plots above still count these.\n\n{lines}\n"
