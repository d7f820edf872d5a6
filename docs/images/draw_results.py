"""Charts of tables in docs/results: `python docs/images/draw_results.py` reads the pages and writes speed_*.svg."""

from __future__ import annotations

from pathlib import Path

from ssd_lab.display.charts import BarValue, bar_chart

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "results"
SHORT = (("transformers assisted, its own schedule", "assisted, its k"), ("transformers ", ""))


def column(page: str, heading: str, title: str) -> dict[str, float]:
    """Numbers of one column of the first table under a heading, by the words of its first column."""
    after = (RESULTS / page).read_text(encoding="utf-8").split(f"## {heading}\n")[1]
    table = next(part for part in after.strip().split("\n\n") if part.startswith("|"))
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    place = head.index(title)
    return {row[0]: float(row[place].replace(",", "")) for row in rows}


def short(name: str) -> str:
    """What has room below a bar."""
    for long, words in SHORT:
        name = name.replace(long, words)
    return name.replace("`", "").split(", f")[0]


def draw(name: str, title: str, series: dict[str, dict[str, float]]) -> None:
    """A bar for each row of each table."""
    groups = list(dict.fromkeys(group for values in series.values() for group in values))
    bars = {
        table: {group: BarValue(value, None, None, f"{table}, {group}: {value:.4g}") for group, value in values.items()}
        for table, values in series.items()
    }
    (FOLDER / f"{name}.svg").write_text(bar_chart(groups, bars, title=title, width=760) + "\n", encoding="utf-8")


def main() -> None:
    """The GPUs beside each other, and each of two machines beside transformers."""
    pages = {"one H100": "gpu.md", "one H200": "h200.md"}
    rounds = {name: column(page, "Rounds of whole runs", "tokens/s") for name, page in pages.items()}
    draw("speed_gpus", "Tokens per second at batch 1, Llama 8B with a 1B draft", rounds)
    for machine, page, heading in (
        ("cpu", "core-cpu.md", "Speed beside transformers"),
        ("h100", "gpu.md", "Beside transformers"),
    ):
        beside = {short(name): speed for name, speed in column(page, heading, "tokens/s").items()}
        draw(f"speed_{machine}", "Tokens per second at batch 1, temperature 0", {"tokens/s": beside})


if __name__ == "__main__":
    main()
