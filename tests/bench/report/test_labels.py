"""Names of points in pictures stand where they can be read."""

from itertools import combinations, pairwise

import pytest
from matplotlib.figure import Figure

from bench.report.labels import name_points

# Bits a weight and divergence of four models' quants, some of which lie beside each other.
LINES = [
    [(3.6, 0.36, "Q2_K"), (4.4, 0.07, "Q3_K_M"), (4.7, 0.032, "IQ4_XS"), (5.05, 0.022, "Q4_K_M"), (6.6, 0.003, "Q6_K")],
    [(6.88, 0.54, "Q2_K"), (7.03, 0.22, "Q3_K_M"), (7.15, 0.15, "IQ4_XS"), (8.25, 0.01, "Q6_K")],
    [(5.2, 0.08, "Q2_K"), (5.36, 0.033, "IQ4_XS"), (5.41, 0.049, "Q3_K_M")],
    [
        (5.14, 0.39, "Q2_K"),
        (5.46, 0.12, "Q3_K_M"),
        (6.17, 0.06, "Q4_K_M"),
        (6.56, 0.079, "Q5_K_M"),
        (8.5, 0.005, "Q8_0"),
    ],
]


@pytest.mark.parametrize("n_lines", [1, 4])
def test_names_stand_apart(n_lines: int) -> None:
    """No name covers another, a marker or an end of the picture, and each is nearer to its own point than to others."""
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    axes = figure.subplots()
    lines = LINES[:n_lines]
    for line in lines:
        axes.plot([x for x, _, _ in line], [y for _, y, _ in line], marker="o")
    axes.set_yscale("log")
    axes.margins(x=0.06, y=0.08)
    points = [point for line in lines for point in line]
    name_points(axes, points, lines, font_size=8)
    figure.draw_without_rendering()

    boxes = [text.get_window_extent() for text in axes.texts]
    marks = [axes.transData.transform((x, y)) for x, y, _ in points]
    assert [text.get_text() for text in axes.texts] == [name for _, _, name in points]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert not [(box, mark) for box in boxes for mark in marks if box.padded(3).contains(*mark)]
    area = axes.get_window_extent()
    assert all(area.contains(box.x0, box.y0) and area.contains(box.x1, box.y1) for box in boxes)
    for i, box in enumerate(boxes):
        away = [max(box.x0 - x, x - box.x1, 0) ** 2 + max(box.y0 - y, y - box.y1, 0) ** 2 for x, y in marks]
        assert away[i] == min(away), points[i]


def test_the_same_points_have_the_same_names_places() -> None:
    """A picture of the same numbers is the same file."""

    def places() -> list[tuple[float, float]]:
        axes = Figure(figsize=(5, 3)).subplots()
        axes.plot([x for x, _, _ in LINES[0]], [y for _, y, _ in LINES[0]])
        name_points(axes, LINES[0], LINES[:1], font_size=8)
        return [text.get_position() for text in axes.texts]

    assert all(a == b for a, b in pairwise([places(), places()]))
